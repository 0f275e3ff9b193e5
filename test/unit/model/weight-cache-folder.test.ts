/** The folder of packed weights among processes: started at once, killed, out of room; what is mapped, and until when. */
import { spawn } from 'node:child_process';
import {
  existsSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  statSync,
  utimesSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { backend, loadModel } from '../../../lib';
import { compiledRoot, runProgram } from '../../support/child';
import { writeTinyCheckpoint } from '../../support/tiny-checkpoint';
import { filesEnding, startModel } from '../../support/weight-cache';

const { kind, reason } = backend();
const withAddon = kind === 'native' ? describe : describe.skip;
if (kind !== 'native') process.stderr.write(`skipped: weights in mapped files: ${reason}\n`);
const onLinux = process.platform === 'linux' ? test : test.skip;

let root: string;
let checkpoint: string;
let cache: string;

beforeAll(() => {
  root = mkdtempSync(join(tmpdir(), 'gqa-weights-'));
  checkpoint = writeTinyCheckpoint(join(root, 'model'));
});
afterAll(() => rmSync(root, { recursive: true, force: true }));
beforeEach(() => {
  cache = mkdtempSync(join(root, 'cache-'));
});

/** A program that starts the model `times` times over the cache and prints facts and a digest of the logits of each. */
function program(path: string, times: number): string {
  const support = JSON.stringify(join(compiledRoot, 'test/support/weight-cache.js'));
  return `
    const { startModel } = require(${support});
    const { createHash } = require('node:crypto');
    for (let i = 0; i < ${times}; i++) {
      const { facts, logits } = startModel(${JSON.stringify(path)}, ${JSON.stringify(cache)});
      const digest = createHash('sha256').update(new Uint8Array(logits.buffer)).digest('hex');
      console.log(JSON.stringify({ ...facts, digest }));
    }`;
}

function startChild(path: string, times: number) {
  const child = spawn(process.execPath, ['-e', program(path, times)], {
    stdio: ['ignore', 'pipe', 'inherit'],
  });
  let stdout = '';
  child.stdout.setEncoding('utf8').on('data', (text: string) => (stdout += text));
  const ended = new Promise<{ status: number | null; stdout: string }>((resolve) =>
    child.on('close', (status) => resolve({ status, stdout })),
  );
  return ended;
}

withAddon('the folder of packed weights', () => {
  test('four processes that start at once, and over a file that is damaged again and again', async () => {
    const children = Array.from({ length: 4 }, () => startChild(checkpoint, 12));
    const damage = setInterval(() => {
      for (const name of filesEnding(cache, '.weights')) {
        // Replaced, not written to: it may be mapped.
        writeFileSync(join(root, 'damaged'), 'gqa-weights-v1\n');
        renameSync(join(root, 'damaged'), join(cache, name));
      }
    }, 15);
    const outcomes = await Promise.all(children);
    clearInterval(damage);
    const starts = outcomes.flatMap(({ status, stdout }) => {
      expect(status).toBe(0);
      return stdout
        .trim()
        .split('\n')
        .map((line) => JSON.parse(line) as { source: string; digest: string });
    });
    expect(starts).toHaveLength(48);
    expect(new Set(starts.map(({ digest }) => digest)).size).toBe(1);
    startModel(checkpoint, cache);
    expect(startModel(checkpoint, cache).facts.reason).toBe('found in the cache');
    expect(readdirSync(cache).filter((name) => name.startsWith('.'))).toEqual([]);
  });

  test('a process killed while it writes leaves nothing that stays', () => {
    const dying = `
      const fs = require('node:fs');
      const { writeSync } = fs;
      let writes = 0;
      fs.writeSync = (...values) => {
        if (++writes === 5) process.kill(process.pid, 'SIGKILL');
        return writeSync(...values);
      };`;
    const { signal } = runProgram(dying + program(checkpoint, 1));
    expect(signal).toBe('SIGKILL');
    const isHalf = (name: string) => name.includes('.weights.partial-');
    expect(filesEnding(cache, '.weights')).toEqual([]);
    expect(readdirSync(cache).filter(isHalf)).toHaveLength(1);
    expect(startModel(checkpoint, cache).facts.source).toBe('cache');
    expect(readdirSync(cache).filter(isHalf)).toEqual([]);
  });

  test('what was least recently used goes where the limit asks for it', () => {
    const files = [1, 2, 3].map((seed) => {
      const path = writeTinyCheckpoint(join(cache, `model-${seed}`), { seed });
      return { path, weights: startModel(path, cache).facts.path! };
    });
    const hour = 3_600_000;
    files.forEach(({ weights }, i) => {
      const used = new Date(Date.now() - (3 - i) * hour);
      utimesSync(weights, used, used);
    });
    // The first is used again: the second is the oldest now.
    expect(startModel(files[0].path, cache).facts.reason).toBe('found in the cache');
    const { size } = statSync(files[0].weights);
    process.env.GQA_CACHE_LIMIT_GB = String((3.5 * size) / 1e9);
    try {
      const fourth = startModel(writeTinyCheckpoint(join(cache, 'model-4'), { seed: 4 }), cache);
      expect(fourth.facts.source).toBe('cache');
      expect(files.map(({ weights }) => existsSync(weights))).toEqual([true, false, true]);
      process.env.GQA_CACHE_LIMIT_GB = '0';
      const fifth = startModel(writeTinyCheckpoint(join(cache, 'model-5'), { seed: 5 }), cache);
      expect(fifth.facts.source).toBe('packed');
      expect(fifth.facts.reason).toContain('at most 0 GB (GQA_CACHE_LIMIT_GB)');
      process.env.GQA_CACHE_LIMIT_GB = 'much';
      expect(() => startModel(checkpoint, cache)).toThrow(
        expect.objectContaining({ code: 'OUT_OF_RANGE', argument: 'GQA_CACHE_LIMIT_GB' }),
      );
    } finally {
      delete process.env.GQA_CACHE_LIMIT_GB;
    }
  });

  onLinux('a disk that is full: packed in memory, nothing left behind', () => {
    // Files of 4 KB at most; SIGXFSZ is ignored by Node.
    const limited = `require('node:child_process').execFileSync('bash',
      ['-c', 'ulimit -f 4; exec "$0" -e "$1"', process.execPath, ${JSON.stringify(program(checkpoint, 1))}],
      { stdio: 'inherit' });`;
    const { status, stdout } = runProgram(limited);
    expect(status).toBe(0);
    const outcome = JSON.parse(stdout) as { source: string; reason: string };
    expect(outcome.source).toBe('packed');
    expect(outcome.reason).toContain('the file is larger than it may be (EFBIG)');
    expect(readdirSync(cache).filter((name) => !name.endsWith('.hash'))).toEqual([]);
  });

  onLinux('a file is mapped while a model has it, and not after dispose()', async () => {
    const isMapped = (file: string) => readFileSync('/proc/self/maps', 'utf8').includes(file);
    const models = [];
    for (let i = 0; i < 2; i++) models.push(await loadModel(checkpoint, { weightCache: cache }));
    const file = models[0].weights.path!;
    expect(isMapped(file)).toBe(true);
    // Removed from the folder it stays with those who have it.
    rmSync(file);
    const before = await models[1].logits([1, 2, 3]);
    await models[0].dispose();
    expect(isMapped(file)).toBe(true);
    expect(await models[1].logits([1, 2, 3])).toEqual(before);
    await models[1].dispose();
    expect(isMapped(file)).toBe(false);
    await expect(models[1].logits([1, 2, 3])).rejects.toMatchObject({ code: 'DISPOSED' });
  });
});
