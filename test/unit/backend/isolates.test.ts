/** Async calls and isolates that end: nothing crashes, nothing is left behind, several isolates work at once. */
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { backend } from '../../../lib/backend';
import { compiledRoot, runProgram } from '../../support/child';

const { kind, reason } = backend();
const withAddon = kind === 'native' ? test : test.skip;
if (kind !== 'native') console.warn(`tests of the addon in isolates skipped: ${reason}`);

/** Helpers of the programs below, which run in the main isolate and in workers alike. */
const PRELUDE = `
  const { Worker, isMainThread, workerData } = require('node:worker_threads');
  const { getBackend } = require(${JSON.stringify(join(compiledRoot, 'lib/backend/index.js'))});
  const pause = (ms) => new Promise((done) => setTimeout(done, ms));
  const ended = (worker) => new Promise((done) => worker.on('exit', done));
  function problem(tokens) {
    const random = (n) => Float32Array.from({ length: n }, (_, i) => Math.sin(i * i));
    return {
      q: random(tokens * 8 * 64), sinkQ: null, qDtype: 'f32', out: new Float32Array(tokens * 8 * 64), outDtype: 'f32', lse: null,
      batch: 1, queryTokens: tokens, keyTokens: tokens, heads: 8, kvHeads: 2, headDim: 64, valueDim: 64,
      kv: { type: 'tensor', k: random(tokens * 2 * 64), v: random(tokens * 2 * 64), dtype: 'f32' },
      causal: true, window: Infinity, sinkTokens: 0, scale: 0.125, softcap: 0, mask: null, bias: null,
      alibiSlopes: null, sinkLogits: null, stats: null, dropout: null, precision: 'exact',
    };
  }
  const spawn = (body) => new Worker(prelude + '(async () => {' + body + '})()', { eval: true });
`;

/** Runs `body` in the main isolate of a new process; `spawn(text)` runs text in a worker with the same helpers. */
function run(body: string) {
  const program = `const prelude = ${JSON.stringify(PRELUDE)};${PRELUDE}(async () => {${body}})()`;
  return runProgram(program.replace('const spawn', 'var spawn'));
}

withAddon('the process waits for its async calls and then ends', () => {
  const { status, stdout } = run(`
    for (let i = 0; i < 5; i++) getBackend().attendAsync(problem(200), new Int32Array(1)).then(console.log);
  `);
  expect(stdout).toBe('true\n'.repeat(5));
  expect(status).toBe(0);
});

withAddon('process.exit with calls running and queued', () => {
  const { status, signal } = run(`
    const inputs = problem(1500);
    for (let i = 0; i < 12; i++) {
      getBackend().attendAsync({ ...inputs, out: inputs.out.slice() }, new Int32Array(1));
    }
    setTimeout(() => process.exit(7), 10);
  `);
  expect({ status, signal }).toEqual({ status: 7, signal: null });
});

withAddon('workers terminated in the middle of async calls, others go on', () => {
  const { status, signal, stdout } = run(`
    const endless = 'for (;;) await Promise.all([0, 1, 2].map(() => getBackend().attendAsync(problem(700), new Int32Array(1))))';
    const expected = problem(300);
    getBackend().attend(expected);
    for (let round = 0; round < 4; round++) {
      const workers = [spawn(endless), spawn(endless)];
      await pause(120 + 60 * round);
      const mine = problem(300);
      const done = getBackend().attendAsync(mine, new Int32Array(1));
      await Promise.all(workers.map((worker) => worker.terminate()));
      console.log(await done, mine.out.every((x, i) => x === expected.out[i]));
    }
  `);
  expect({ status, signal }).toEqual({ status: 0, signal: null });
  expect(stdout).toBe('true true\n'.repeat(4));
});

withAddon('four isolates at once get the bits that one gets alone', () => {
  const { status, stdout } = run(`
    const work = \`
      const p = problem(64);
      getBackend().attend(p);
      const expected = p.out.slice();
      for (let i = 0; i < 100; i++) {
        getBackend().attend(p);
        if (!p.out.every((x, j) => x === expected[j])) process.exit(1);
      }
    \`;
    console.log((await Promise.all([0, 1, 2, 3].map(() => ended(spawn(work))))).join());
  `);
  expect(stdout).toBe('0,0,0,0\n');
  expect(status).toBe(0);
});

withAddon('a cancelled call resolves to false, before and after it began', () => {
  const { stdout } = run(`
    console.log(await getBackend().attendAsync(problem(4), Int32Array.of(1)));
    const cancel = new Int32Array(1);
    const running = getBackend().attendAsync(problem(3000), cancel);
    Atomics.store(cancel, 0, 1);
    console.log(await running);
  `);
  expect(stdout).toBe('false\nfalse\n');
});

const onLinux = kind === 'native' && process.platform === 'linux' ? test : test.skip;

onLinux('the addon stays in memory when the only isolate that loaded it ends', () => {
  // Long enough to wake a second thread even where others keep the processors busy.
  const { status, stdout } = run(`
    await ended(spawn('getBackend().attend(problem(1500))'));
    console.log(require('node:fs').readFileSync('/proc/self/maps', 'utf8').includes('gqa.node'));
  `);
  // With one thread nothing of the pool is started, and nothing needs to stay.
  expect(stdout).toBe(`${backend().threads > 1}\n`);
  expect(status).toBe(0);
  expect(readFileSync('/proc/self/maps', 'utf8')).toContain('gqa.node');
});
