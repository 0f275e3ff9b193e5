/**
 * Every error code, by the calls that bring it: code, argument, and a message that names what was expected and what
 * came. What the caller owns is as it was before.
 */
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { attention, attentionAsync, Engine, loadModel, Tensor, type Model } from '../../lib';
import { runProgram } from '../support/child';
import { embeddedModel, packageRoot } from '../support/package';
import { expectRefused } from '../support/refusals';
import { ATTENTION, MERGE } from './attention-rows';
import { cache, CACHE } from './cache-rows';
import { engineRows } from './engine-rows';
import { modelRows } from './model-rows';
import { outputRows } from './output-rows';
import { PLANS } from './plan-rows';
import { kv, q, SHAPE, zeros } from './rows';
import { CACHE_USES, SHARING, smallCache } from './sharing-rows';
import { SNAPSHOTS } from './snapshot-rows';
import { TENSORS } from './tensor-rows';
import { uptrainRows } from './uptrain-rows';

let model: Model;
let engine: Engine;
let folder: string;

beforeAll(async () => {
  folder = mkdtempSync(join(tmpdir(), 'gqa-errors-'));
  model = await loadModel(embeddedModel, { contextLength: 20 });
  engine = await Engine.start(embeddedModel, { contextLength: 20, maxSequences: 1, maxQueue: 0 });
});
afterAll(async () => {
  await model.dispose();
  await engine.dispose();
  rmSync(folder, { recursive: true });
});

const ROWS = [
  ...TENSORS,
  ...ATTENTION,
  ...MERGE,
  ...CACHE,
  ...SHARING,
  ...SNAPSHOTS,
  ...PLANS,
  ...modelRows(
    () => model,
    () => folder,
  ),
  ...engineRows(() => engine),
  ...outputRows(() => folder),
  ...uptrainRows(() => folder),
];

test.each(ROWS)('%s, %s: %s', (code, argument, _, action) => expectRefused(code, argument, action));

const UNAVAILABLE: [string, Record<string, string>][] = [
  ['an unknown backend', { GQA_BACKEND: 'gpu', GQA_ISA: '' }],
  ['an unknown instruction set', { GQA_BACKEND: '', GQA_ISA: 'mmx' }],
  ['an instruction set of the JavaScript backend', { GQA_BACKEND: 'js', GQA_ISA: 'avx2' }],
  ['threads of the JavaScript backend', { GQA_BACKEND: 'js', GQA_ISA: '', GQA_THREADS: '4' }],
  ['no threads', { GQA_BACKEND: 'native', GQA_ISA: '', GQA_THREADS: '0' }],
  ['threads that are no number', { GQA_BACKEND: 'native', GQA_ISA: '', GQA_THREADS: 'many' }],
];

test.each(UNAVAILABLE)('BACKEND_UNAVAILABLE: %s', (_, env) => {
  const program = `
    const attempt = (f) => { try { f(); return 'nothing'; } catch (error) { return error.code + ': ' + error.message; } };
    const t = () => gqa.Tensor.zeros([1, 1, 1, 1]);
    console.log([attempt(() => gqa.backend()), attempt(() => gqa.attention(t(), t(), t()))].join('\\n'));`;
  const { status, stdout } = runProgram(program, env);
  expect(status).toBe(0);
  const named = Object.entries(env).filter(([, value]) => value !== '');
  for (const line of stdout.trim().split('\n')) {
    expect(line).toMatch(/^BACKEND_UNAVAILABLE: /);
    expect(named.some(([name, value]) => line.includes(`${name}=${value}`))).toBe(true);
  }
});

test('a refused call leaves `out` and the cache as they were', async () => {
  const out = Tensor.from(new Array(64).fill(7), SHAPE);
  const values = kv();
  values.dispose();
  await expectRefused('DISPOSED', 'v', () => attention(q(), kv(), values, { out }));
  await expectRefused('OUT_OF_RANGE', 'options.window', () =>
    attention(q(), kv(), kv(), { out, window: 0 }),
  );
  await expectRefused('OUT_OF_RANGE', 'options.window', () =>
    attentionAsync(q(), kv(), kv(), { out, window: 0 }),
  );
  expect(out.data).toEqual(Float32Array.from(new Array(64).fill(7)));

  const sequence = cache({ layers: 1 }).sequence();
  const ones = Tensor.from(new Array(16 * 7).fill(1), [7, 2, 8]);
  sequence.append(0, ones, ones);
  const nines = Tensor.from(new Array(16 * 2).fill(9), [2, 2, 8]);
  await expectRefused('CAPACITY_EXCEEDED', 'k', () => sequence.append(0, nines, nines));
  expect(sequence.length).toBe(7);
  expect(attention(zeros(1, 1, 2, 8), sequence.layer(0)).data).toEqual(
    Float32Array.from(new Array(16).fill(1)),
  );
});

test.each(CACHE_USES)('%s waits for no async call', async (_, use) => {
  const sequence = smallCache().sequence();
  sequence.append(0, zeros(3, 2, 8), zeros(3, 2, 8));
  const running = attentionAsync(zeros(1, 1, 2, 8), sequence.layer(0));
  await expectRefused('BUSY', /^(cache|sequence)$/, () => use(sequence));
  await running;
  use(sequence);
  expect(sequence.length).toBeLessThanOrEqual(3);
});

test('a sequence stays in its thread', () => {
  const sequence = smallCache().sequence();
  expect(() => structuredClone(sequence)).toThrow('could not be cloned');
});

test('every code is brought about by some row, and told in the documents', () => {
  const source = readFileSync(join(packageRoot, 'lib/core/errors.ts'), 'utf8');
  const codes = Array.from(source.matchAll(/^ {2}\| '([A-Z_]+)'/gm), (match) => match[1]);
  expect(codes.length).toBeGreaterThan(20);
  const elsewhere = ['BACKEND_UNAVAILABLE', 'BUSY', 'INTERNAL'];
  const brought = new Set<string>([...ROWS.map(([code]) => code), ...elsewhere]);
  expect(codes.filter((code) => !brought.has(code))).toEqual([]);
  const documents = readFileSync(join(packageRoot, 'README.md'), 'utf8');
  expect(codes.filter((code) => !documents.includes(code))).toEqual([]);
});
