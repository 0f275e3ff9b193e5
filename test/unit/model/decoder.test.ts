/** LanguageModel.step: many sequences at once, each as it would be alone. */
import type { KvCache } from '../../../lib';
import { loadArchitecture } from '../../../lib/model/arch';
import { openCheckpoint } from '../../../lib/model/checkpoint';
import type { LanguageModel, TokenRun } from '../../../lib/model/types';
import { embeddedModel } from '../../support/package';
import { Random } from '../../support/random';
import { errorOf } from '../refusals';

let model: LanguageModel;
let cache: KvCache;
beforeAll(() => {
  const { config, weights } = openCheckpoint(embeddedModel);
  model = loadArchitecture(config, weights);
  weights.close();
  cache = model.createCache({ dtype: 'f32', capacity: 300, sequences: 6 });
});
afterAll(() => {
  cache.dispose();
  model.dispose();
});

const random = new Random(7);
const text = (length: number): number[] => Array.from({ length }, () => 2 + random.int(0, 2000));

/** The logits of a text alone, after each of its tokens. */
function alone(ids: readonly number[]): Float32Array {
  const sequence = cache.sequence();
  const logits = model.forward(ids, sequence, 'all');
  sequence.dispose();
  return logits;
}

function worst(got: Float32Array, expected: Float32Array): number {
  expect(got.length).toBe(expected.length);
  return got.reduce((most, value, i) => Math.max(most, Math.abs(value - expected[i])), 0);
}

it('gives each of several sequences what it gets alone, prompts beside single tokens', () => {
  const { vocabSize } = model.config;
  const texts = [text(70), text(1), text(33), text(5)];
  const sequences = texts.map(() => cache.sequence());
  const rows: number[][] = texts.map(() => []);
  const got = texts.map(() => [] as Float32Array[]);
  // Each takes another number of tokens a step; the third is asked for all its logits, the last for none but the last.
  const pace = [11, 1, 7, 2];
  for (let step = 0; texts.some((ids, i) => rows[i].length < ids.length); step++) {
    const runs: (TokenRun & { index: number })[] = [];
    texts.forEach((ids, index) => {
      const next = ids.slice(rows[index].length, rows[index].length + pace[index]);
      if (next.length === 0) return;
      rows[index].push(...next);
      const ends = rows[index].length === ids.length;
      const want = index === 2 ? 'all' : index === 3 && !ends ? 'none' : 'last';
      runs.push({ sequence: sequences[index], ids: next, want, index });
    });
    const counts = runs.map(({ want, ids }) => ({ all: ids.length, last: 1, none: 0 })[want]);
    const out = new Float32Array(counts.reduce((a, b) => a + b, 0) * vocabSize);
    model.step(runs, out);
    let row = 0;
    runs.forEach(({ index }, i) => {
      for (let n = 0; n < counts[i]; n++, row++) {
        got[index].push(out.slice(row * vocabSize, (row + 1) * vocabSize));
      }
    });
  }
  texts.forEach((ids, index) => {
    const expected = alone(ids);
    const last = expected.subarray((ids.length - 1) * vocabSize);
    expect(worst(got[index].at(-1)!, last)).toBeLessThan(1e-4);
    if (index !== 2) return;
    expect(got[2]).toHaveLength(ids.length);
    got[2].forEach((logits, i) => {
      const row = expected.subarray(i * vocabSize, (i + 1) * vocabSize);
      expect(worst(logits, row)).toBeLessThan(1e-4);
    });
  });
  for (const sequence of sequences) sequence.dispose();
});

it('refuses what makes no step, and appends nothing', () => {
  const first = cache.sequence();
  const second = cache.sequence();
  const out = new Float32Array(2 * model.config.vocabSize);
  const run = (sequence: TokenRun['sequence'], ids: number[]): TokenRun => ({
    sequence,
    ids,
    want: 'last',
  });
  const step = (...runs: TokenRun[]): string => errorOf(() => model.step(runs, out));
  expect(step()).toBe('OUT_OF_RANGE runs');
  expect(step(run(first, [5]), run(second, []))).toBe('EMPTY_PROMPT runs[1].ids');
  expect(step(run(first, [5]), run(first, [6]))).toMatch(/^INVALID_ARGUMENT .*sequence$/);
  expect(step(run(first, [5]), run(second, [2048]))).toBe('OUT_OF_RANGE ids[0]');
  expect(step(run(first, text(200)), run(second, text(57)))).toBe('OUT_OF_RANGE runs');
  expect(step(run(first, text(301)))).toBe('CONTEXT_EXCEEDED runs[0].ids');
  const all: TokenRun = { sequence: first, ids: [5, 6, 7], want: 'all' };
  expect(step(all)).toBe('BUFFER_TOO_SMALL out');
  expect([first.length, second.length]).toEqual([0, 0]);
  first.dispose();
  second.dispose();
});
