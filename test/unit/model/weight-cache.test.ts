/** The folder of packed weights: what is mapped from it are the weights, whatever became of its files. */
import {
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  utimesSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { backend, loadModel } from '../../../lib';
import { Engine } from '../../../lib/engine';
import { runProgram } from '../../support/child';
import { Random } from '../../support/random';
import { writeTinyCheckpoint } from '../../support/tiny-checkpoint';
import { filesEnding, startModel, type Start } from '../../support/weight-cache';

const { kind, reason } = backend();
const withAddon = kind === 'native' ? describe : describe.skip;
if (kind !== 'native') process.stderr.write(`skipped: weights in mapped files: ${reason}\n`);

const IDS = [1, 5, 9, 200, 1042];
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

function start(folder: string | false = cache, path = checkpoint): Start {
  return startModel(path, folder);
}

/** The one file of weights. */
function weightsFile(): string {
  const names = filesEnding(cache, '.weights');
  expect(names).toHaveLength(1);
  return join(cache, names[0]);
}

/** Another file in its place: nobody may write to one that was mapped. */
function replace(file: string, bytes: Uint8Array): void {
  rmSync(file);
  writeFileSync(file, bytes);
}

withAddon('the weight cache', () => {
  test('the first start packs, writes and maps; the next ones map; the bits are those of packed weights', () => {
    const plain = start(false);
    expect(plain.facts).toEqual({
      source: 'packed',
      path: null,
      reason: 'the weight cache was not wanted',
    });
    const first = start();
    const file = weightsFile();
    expect(first.facts.source).toBe('cache');
    expect(first.facts.reason).toBe('packed and written: not in the cache');
    const written = statSync(file);
    const second = start();
    expect(second.facts).toEqual({ source: 'cache', path: file, reason: 'found in the cache' });
    expect(statSync(file).ino).toBe(written.ino);
    expect(first.logits).toEqual(plain.logits);
    expect(second.logits).toEqual(plain.logits);
    expect(readdirSync(cache).filter((name) => name.startsWith('.'))).toEqual([]);
  });

  test('a byte that flips anywhere is found, or does not matter', () => {
    const { logits } = start();
    const file = weightsFile();
    const whole = readFileSync(file);
    const random = new Random(7);
    let found = 0;
    for (let round = 0; round < 30; round++) {
      // Half of them in the preamble and the index.
      const place = random.int(0, whole.length - 1);
      const at = [place, random.int(0, 63), whole.length - 1 - (place % 4000)][round % 3];
      const damaged = Buffer.from(whole);
      damaged[at] ^= 1 << random.int(0, 7);
      replace(file, damaged);
      const again = start();
      expect(again.logits).toEqual(logits);
      expect(again.facts.source).toBe('cache');
      if (again.facts.reason !== 'found in the cache') {
        found++;
        expect(again.facts.reason).toMatch(/^packed and written: .*(expected|Expected)/);
        expect(readFileSync(file).equals(whole)).toBe(true);
      }
    }
    expect(found).toBeGreaterThan(25);
  });

  test('a file of any length, of another model, or no file at all', () => {
    const { logits } = start();
    const file = weightsFile();
    const whole = readFileSync(file);
    const size = whole.length;
    for (const length of [0, 1, 63, 64, 4096, Math.floor(size / 2), size - 1]) {
      replace(file, whole.subarray(0, length));
      const again = start();
      expect(again.logits).toEqual(logits);
      expect(again.facts.reason).toMatch(/^packed and written: /);
      expect(statSync(file).size).toBe(size);
    }
    const other = writeTinyCheckpoint(join(cache, 'other'), { seed: 2 });
    const foreign = start(join(cache, 'foreign'), other);
    expect(foreign.logits).not.toEqual(logits);
    replace(file, readFileSync(foreign.facts.path!));
    expect(start().logits).toEqual(logits);
    rmSync(file);
    mkdirSync(file);
    const blocked = start();
    expect(blocked.logits).toEqual(logits);
    expect(blocked.facts).toMatchObject({ source: 'packed', path: null });
  });

  test('where nothing can be written, weights are packed in memory and the facts say why', () => {
    const { logits } = start(false);
    const inFile = join(root, 'a-file');
    writeFileSync(inFile, '');
    const outcome = start(join(inFile, 'cache'));
    expect(outcome.logits).toEqual(logits);
    expect(outcome.facts.source).toBe('packed');
    expect(outcome.facts.reason).toContain('the folder is a file (ENOTDIR)');
  });

  test('a model file that changes is another, though its size and times stay', () => {
    const path = writeTinyCheckpoint(join(cache, 'changing'));
    const file = join(path, 'model.safetensors');
    const old = new Date(Date.now() - 3_600_000);
    utimesSync(file, old, old);
    const before = start(cache, path);
    expect(start(cache, path).facts.reason).toBe('found in the cache');
    const bytes = readFileSync(file);
    // The last tensor's last number.
    bytes[bytes.length - 1] ^= 0x40;
    writeFileSync(file, bytes);
    utimesSync(file, old, old);
    const after = start(cache, path);
    expect(after.facts.reason).toBe('packed and written: not in the cache');
    expect(after.facts.path).not.toBe(before.facts.path);
    expect(after.logits).toEqual(start(false, path).logits);
    expect(filesEnding(cache, '.weights')).toHaveLength(2);
  });

  test('loadModel: the folder asked for, none, and none by default for a small model', async () => {
    const seen = [];
    for (const weightCache of [cache, cache, false, undefined] as const) {
      const model = await loadModel(checkpoint, { weightCache });
      seen.push([model.weights.source, await model.logits(IDS)]);
      await model.dispose();
    }
    const logits = seen[0][1];
    expect(seen).toEqual([
      ['cache', logits],
      ['cache', logits],
      ['packed', logits],
      ['packed', logits],
    ]);
    for (const wrong of [true, 5, '', {}]) {
      await expect(loadModel(checkpoint, { weightCache: wrong as string })).rejects.toMatchObject({
        code: 'INVALID_ARGUMENT',
        argument: 'options.weightCache',
      });
    }
  });

  test('an engine maps what a model wrote, and says so', async () => {
    const { facts } = start();
    const engine = await Engine.start(checkpoint, { weightCache: cache });
    const { weights } = engine.model;
    await engine.dispose();
    expect(weights).toEqual({ source: 'cache', path: facts.path, reason: 'found in the cache' });
  });

  test('the JavaScript backend packs in memory and says so', () => {
    const program = `gqa.loadModel(${JSON.stringify(checkpoint)}, { weightCache: ${JSON.stringify(cache)} })
      .then((model) => { console.log(JSON.stringify(model.weights)); return model.dispose(); });`;
    const { stdout } = runProgram(program, { GQA_BACKEND: 'js' });
    expect(JSON.parse(stdout)).toEqual({
      source: 'packed',
      path: null,
      reason: 'the js backend maps no weights',
    });
    expect(readdirSync(cache)).toEqual([]);
  });
});
