/** Ends of threads and processes at the worst moment: each program must end with its own exit status, never a crash. */
import { join } from 'node:path';
import { runProgram } from '../support/child';
import { embeddedModel } from '../support/package';
import { samples } from '../support/samples';

/** A call long enough to be under way when something ends, and the handles it needs. */
const TOKENS = samples(1500);
const PREPARE = `
const { Tensor, KvCache, attention, attentionAsync } = gqa;
const make = (...shape) => Tensor.view(new Float32Array(shape.reduce((a, b) => a * b)).fill(0.1), shape);
const [q, k, v] = [make(1, ${TOKENS}, 4, 64), make(1, ${TOKENS}, 2, 64), make(1, ${TOKENS}, 2, 64)];
const start = () => attentionAsync(q, k, v, { causal: true });
`;

const PROGRAMS: [string, number, string][] = [
  ['process.exit while a call runs', 7, `start(); setTimeout(() => process.exit(7), 5);`],
  ['process.exit at once', 8, `start(); process.exit(8);`],
  ['nothing awaited', 0, `start();`],
  [
    'an uncaught error while a call runs',
    1,
    `start(); setTimeout(() => { throw new Error('meant'); }, 5);`,
  ],
  [
    'everything dropped and collected while a call runs',
    0,
    `
    let tensors = [make(1, ${TOKENS}, 4, 64), make(1, ${TOKENS}, 2, 64), make(1, ${TOKENS}, 2, 64)];
    let call = attentionAsync(...tensors);
    tensors = null; call = null;
    for (let i = 0; i < 5; i++) gc();
    setTimeout(() => { for (let i = 0; i < 5; i++) gc(); }, 3);`,
  ],
  [
    'a cache dropped and collected while a call runs',
    0,
    `
    (() => {
      const cache = new KvCache({ layers: 1, kvHeads: 2, headDim: 64, capacity: ${TOKENS} });
      const sequence = cache.sequence();
      sequence.append(0, k, v);
      attentionAsync(q, sequence.layer(0));
    })();
    for (let i = 0; i < 5; i++) gc();
    setTimeout(() => { for (let i = 0; i < 5; i++) gc(); }, 3);`,
  ],
  [
    'inputs transferred away while a call runs',
    0,
    `
    const call = start();
    const moved = [q, k, v].map((t) => structuredClone(t.storage.buffer, { transfer: [t.storage.buffer] }));
    call.then(() => {}, (error) => { if (error.name !== 'GqaError') throw error; })
      .then(() => { if (moved.length !== 3) process.exit(1); });`,
  ],
  [
    'inputs transferred away and collected while a call runs',
    0,
    `
    const call = start();
    [q, k, v].map((t) => structuredClone(t.storage.buffer, { transfer: [t.storage.buffer] }));
    for (let i = 0; i < 5; i++) gc();
    setTimeout(() => { for (let i = 0; i < 5; i++) gc(); }, 1);
    call.then(() => {}, (error) => { if (error.name !== 'GqaError') throw error; });`,
  ],
  [
    'aborted and exited',
    3,
    `
    const controller = new AbortController();
    attentionAsync(q, k, v, { signal: controller.signal }).catch(() => process.exit(3));
    setTimeout(() => controller.abort(), 2);
    setTimeout(() => process.exit(3), 2000);`,
  ],
  [
    'a handler that starts the next call at exit',
    0,
    `
    process.on('exit', () => { attention(q, k, v); start(); });
    start();`,
  ],
];

test.each(PROGRAMS)('%s: exit status %i', (_, status, body) => {
  const result = runProgram(PREPARE + body);
  expect([result.status, result.signal, result.status === status ? '' : result.stderr]).toEqual([
    status,
    null,
    '',
  ]);
});

/** Runs `body` in a worker thread of a program; \`parent\` is the worker's port. */
function inWorker(body: string, main: string): string {
  const source = `const gqa = require(${JSON.stringify(join(__dirname, '../../lib/index.js'))});
    const { parentPort: parent } = require('node:worker_threads');
    ${PREPARE}
    ${body}`;
  return `const { Worker } = require('node:worker_threads');
    const worker = () => new Worker(${JSON.stringify(source)}, { eval: true });
    ${PREPARE}
    ${main}`;
}

const WORKER_PROGRAMS: [string, number, string, string][] = [
  [
    'a worker computes what the main thread does',
    0,
    `parent.postMessage(attention(q, k, v).data);`,
    `
    worker().on('message', (data) => {
      const own = attention(q, k, v).data;
      if (!Buffer.from(own.buffer).equals(Buffer.from(data.buffer))) process.exit(1);
    });`,
  ],
  [
    'four workers and the main thread at once',
    0,
    `start().then((t) => parent.postMessage(t.data[5]));`,
    `
    let left = 4;
    for (let n = 0; n < 4; n++) worker().on('message', () => { left--; });
    start().then(() => start());
    process.on('exit', () => { if (left > 0) process.exitCode = 1; });`,
  ],
  [
    'a worker is terminated while its call runs',
    0,
    `start(); parent.postMessage('running');`,
    `
    const w = worker();
    w.on('message', () => setTimeout(() => w.terminate().then(() => start()), 2));`,
  ],
  [
    'a worker exits while its call runs',
    0,
    `start(); setTimeout(() => process.exit(4), 3);`,
    `
    worker().on('exit', (code) => { if (code !== 4) process.exit(1); attention(q, k, v); });`,
  ],
  [
    'a worker dies of an error while its call runs',
    0,
    `start(); setTimeout(() => { throw new Error('meant'); }, 3);`,
    `
    worker().on('error', () => start());`,
  ],
  [
    'the process exits while workers compute',
    5,
    `const again = () => start().then(again); again(); parent.postMessage(1);`,
    `
    let ready = 0;
    for (let n = 0; n < 3; n++) worker().on('message', () => { if (++ready === 3) process.exit(5); });`,
  ],
  [
    'twenty workers one after another',
    0,
    `
    const cache = new KvCache({ layers: 1, kvHeads: 2, headDim: 64, capacity: 64 });
    const sequence = cache.sequence();
    sequence.append(0, make(3, 2, 64), make(3, 2, 64));
    attentionAsync(make(1, 1, 4, 64), sequence.layer(0)).then(() => parent.postMessage(1));`,
    `
    const next = (n) => { if (n > 0) worker().on('exit', (code) => { if (code !== 0) process.exit(1); next(n - 1); }); };
    next(20);`,
  ],
  [
    'tensors over shared memory in two threads',
    0,
    `
    parent.once('message', ({ buffer }) => {
      const t = Tensor.view(new Float32Array(buffer), [1, 16, 2, 64]);
      parent.postMessage(attention(t, t, t).data[0]);
    });`,
    `
    const buffer = new SharedArrayBuffer(16 * 2 * 64 * 4);
    const t = Tensor.view(new Float32Array(buffer).fill(0.25), [1, 16, 2, 64]);
    const w = worker();
    w.postMessage({ buffer });
    w.on('message', (first) => { if (Math.abs(first - attention(t, t, t).data[0]) > 1e-6) process.exit(1); });`,
  ],
];

test.each(WORKER_PROGRAMS)('%s: exit status %i', (_, status, body, main) => {
  const result = runProgram(inWorker(body, main));
  expect([result.status, result.signal, result.status === status ? '' : result.stderr]).toEqual([
    status,
    null,
    '',
  ]);
});

const LOAD = `const loaded = gqa.loadModel(${JSON.stringify(embeddedModel)});`;
const MODEL_PROGRAMS: [string, number, string][] = [
  ['loaded and never disposed', 0, `${LOAD}`],
  [
    'one answer, never disposed',
    0,
    `${LOAD}
    loaded.then((m) => m.logits([1, 2, 3])).then((x) => { if (x.length !== 2048) process.exit(1); });`,
  ],
  [
    'exit while generating',
    6,
    `${LOAD}
    loaded.then(async (m) => { for await (const _ of m.generate('Once', { maxTokens: 200 })) process.exit(6); });`,
  ],
  [
    'left in the middle',
    0,
    `${LOAD}
    loaded.then(async (m) => {
      for await (const _ of m.generate('Once', { maxTokens: 400, temperature: 0 })) break;
      await m.logits([1]);
    });`,
  ],
  [
    'disposed while generating',
    0,
    `${LOAD}
    loaded.then(async (m) => {
      let code;
      try {
        let n = 0;
        for await (const _ of m.generate('Once', { maxTokens: 400, temperature: 0 })) if (++n === 3) m.dispose();
      } catch (error) { code = error.code; }
      if (code !== 'DISPOSED') throw new Error('ended with ' + code);
      await m.dispose();
      const later = await m.logits([1]).catch((error) => error.code);
      if (later !== 'DISPOSED') throw new Error('then ' + later);
    });`,
  ],
  [
    'dropped and collected',
    0,
    `${LOAD}
    loaded.then((m) => { m.logits([1]); m = null; setTimeout(gc, 5); });`,
  ],
];

test.each(MODEL_PROGRAMS)('a model %s: exit status %i', (_, status, body) => {
  const result = runProgram(body);
  expect([result.status, result.signal, result.status === status ? '' : result.stderr]).toEqual([
    status,
    null,
    '',
  ]);
});
