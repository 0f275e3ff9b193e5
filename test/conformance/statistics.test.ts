/** Statistics of the softmax weights, from inside the kernels: against the oracle, over every kind of source. */
import {
  attention,
  attentionAsync,
  AttentionStats,
  GroupedQueryAttention,
  KvCache,
  type Tensor,
} from '../../lib';
import { getBackend } from '../../lib/backend';
import { attentionOracle } from '../oracle';
import { attentionCase, attentionInputs, type AttentionCase } from '../support/attention-case';
import { expectClose, expectSameBits } from '../support/compare';
import { Random } from '../support/random';
import { axis } from '../support/samples';
import { compareStats, statsOf } from '../support/statistics';
import { f32Tensor } from '../support/tensors';
import { UnboundedSequence } from '../support/unbounded-cache';

const FLOATS = ['f32', 'f16', 'bf16'] as const;
const STATS = [
  { sinkTokens: 4, recentTokens: 64 },
  { sinkTokens: 0, recentTokens: 0 },
  { sinkTokens: 70, recentTokens: 3 },
  { sinkTokens: 1, recentTokens: 2 ** 53 - 1 },
];

const CASES: Partial<AttentionCase>[] = [
  // Runs of keys merge; drifting maxima rescale.
  { queryTokens: 1, keyTokens: 1500, kvHeads: 1, group: 5 },
  { queryTokens: 1, keyTokens: 700, kvHeads: 3, group: 1, window: 300, sinkTokens: 4 },
  { queryTokens: 2, keyTokens: 900, group: 7, sharpness: 20 },
  { queryTokens: 67, keyTokens: 131, group: 3, sinkLogits: true },
  { queryTokens: 50, keyTokens: 20, batch: 2 },
  { queryTokens: 30, keyTokens: 90, causal: false, window: 10, sinkTokens: 3 },
  { queryTokens: 9, keyTokens: 70, mask: 'hidden row', plane: { batch: true, heads: true } },
  { queryTokens: 9, keyTokens: 150, mask: 'random', sinkLogits: true, alibi: true },
  { queryTokens: 8, keyTokens: 70, mask: 'all hidden', sinkLogits: true },
  { queryTokens: 5, keyTokens: 100, bias: 'with -Infinity', softcap: 3 },
  { queryTokens: 6, keyTokens: 40, bias: 'row of -Infinity' },
  { queryTokens: 4, keyTokens: 80, dropout: { probability: 0.5, seed: 3 }, scale: -0.3 },
  { queryTokens: 70, keyTokens: 200, kvHeads: 1, group: 8, window: 33 },
];

describe.each(FLOATS)('%s', (dtype) => {
  const shape = { dtype, causal: true, headDim: 24, valueDim: 12 };
  const cases = axis(CASES, 2).map((c, i) => attentionCase({ seed: i, ...shape, ...c }));

  test('of tensors are those of the oracle, beside the same bits of the output', async () => {
    for (const [i, c] of cases.entries()) {
      const asked = STATS[i % STATS.length];
      const { q, k, v, options, oracle } = attentionInputs(c);
      const stats = new AttentionStats(asked);
      const result = attention(q, k, v, { ...options, stats });
      const name = JSON.stringify({ ...c, ...asked });
      compareStats(name, stats, attentionOracle({ ...oracle, stats: asked }), dtype);
      expectSameBits(`out of ${name}`, result.data, attention(q, k, v, options).data);
      const later = new AttentionStats(asked);
      await attentionAsync(q, k, v, { ...options, stats: later });
      expect(statsOf(later)).toEqual(statsOf(stats));
    }
  });
});

test('are the same bits for any number of threads', () => {
  const backend = getBackend();
  const { threads } = backend.info;
  const cases = CASES.map((c, seed) => attentionCase({ seed, causal: true, headDim: 24, ...c }));
  const runs = [1, threads].map((count) => {
    backend.limitThreads(count);
    return cases.map((c) => {
      const { q, k, v, options } = attentionInputs(c);
      const stats = new AttentionStats();
      attention(q, k, v, { ...options, stats });
      return statsOf(stats);
    });
  });
  expect(runs[1]).toEqual(runs[0]);
});

describe.each([...FLOATS, 'q8', 'q4'] as const)('over a cache of %s', (dtype) => {
  const base = { layers: 1, kvHeads: 2, headDim: 40, valueDim: 24, dtype };

  const quantised = dtype === 'q8' || dtype === 'q4';
  test.each([
    ['plain', {}],
    ['windowed', { window: 90, sinkTokens: 5, recent: quantised ? 70 : undefined }],
  ])('%s', (_, more) => {
    const shape = { ...base, ...more };
    const cache = new KvCache({ ...shape, capacity: 420 });
    const sequence = new UnboundedSequence(shape, cache.sequence(), new Random(5));
    for (const [i, tokens] of [1, 60, 150, 100, 70].entries()) {
      sequence.append(tokens);
      for (const queries of i === 4 ? [1, 60] : [1, 9]) {
        const stats = new AttentionStats(STATS[i % STATS.length]);
        if (queries <= tokens) sequence.check(0, queries, 3, { stats, features: i === 3 });
      }
    }
    cache.dispose();
  });
});

/** Random keys, values and queries of `tokens` rows. */
function rows(random: Random, tokens: number, heads: number, headDim: number): Tensor<'f32'> {
  return f32Tensor(random.normals(tokens * heads * headDim), [tokens, heads, headDim]);
}

describe('of a step', () => {
  const shape = { layers: 1, kvHeads: 2, headDim: 16 };
  const heads = 6;
  const asked = { sinkTokens: 4, recentTokens: 20 };

  test.each(axis(['f32', 'q8', 'q4'] as const))('over %s: as of each sequence alone', (dtype) => {
    const cache = new KvCache({ ...shape, dtype, capacity: 800, sequences: 4 });
    const random = new Random(9);
    const first = cache.sequence();
    first.append(0, rows(random, 640, 2, 16), rows(random, 640, 2, 16));
    const sequences = [first, first.fork(), first.fork()];
    const counts = [1, 3, 1];
    const total = counts.reduce((a, b) => a + b);
    const [k, v, q] = [
      rows(random, total, 2, 16),
      rows(random, total, 2, 16),
      rows(random, total, heads, 16),
    ];
    const entries = sequences.map((sequence, i) => ({ sequence, tokens: counts[i] }));
    const step = cache.step(entries, { cascade: false });
    step.append(0, k, v);
    const stats = new AttentionStats(asked);
    const plain = step.attend(0, q);
    expectSameBits('out of a step', step.attend(0, q, undefined, { stats }).data, plain.data);
    expect(stats.shape).toEqual([1, total, heads]);
    const whole = statsOf(stats);
    let row = 0;
    sequences.forEach((sequence, i) => {
      const width = heads * 16;
      const own = q.data.subarray(row * width, (row + counts[i]) * width);
      const alone = new AttentionStats(asked);
      attention(f32Tensor(own, [1, counts[i], heads, 16]), sequence.layer(0), { stats: alone });
      const from = row * heads;
      row += counts[i];
      for (const [name, values] of Object.entries(statsOf(alone))) {
        const found = whole[name as keyof typeof whole].slice(from, row * heads);
        expect(found).toEqual(values);
      }
    });
    // Keys that are read once for all.
    const shared = cache.step(entries.map(({ sequence }) => ({ sequence, tokens: 1 })));
    shared.append(0, rows(random, 3, 2, 16), rows(random, 3, 2, 16));
    const queries = rows(random, 3, heads, 16);
    shared.attend(0, queries, undefined, { stats });
    sequences.forEach((sequence, i) => {
      const alone = new AttentionStats(asked);
      const own = queries.data.subarray(i * heads * 16, (i + 1) * heads * 16);
      attention(f32Tensor(own, [1, 1, heads, 16]), sequence.layer(0), { stats: alone });
      for (const [name, values] of Object.entries(statsOf(alone))) {
        const found = statsOf(stats)[name as keyof typeof whole].slice(i * heads, (i + 1) * heads);
        expectClose(`${name} of cascade`, found, values, dtype === 'q4' ? 1e-3 : 1e-5);
      }
    });
    cache.dispose();
  });

  test.each([3, 200])('a token of a tree after %i: as at the end of its path', (before) => {
    const cache = new KvCache({ ...shape, capacity: 300, sequences: 2 });
    const random = new Random(4);
    const sequence = cache.sequence();
    sequence.append(0, rows(random, before, 2, 16), rows(random, before, 2, 16));
    const tree = [-1, 0, 0, 1, -1, 3, 2];
    const [k, v, q] = [2, 2, heads].map((n) => rows(random, tree.length, n, 16));
    const stats = new AttentionStats({ sinkTokens: 5, recentTokens: 3 });
    const pathOf = (row: number): number[] => (row < 0 ? [] : [...pathOf(tree[row]), row]);
    const alone = tree.map((_, row) => {
      const fork = sequence.fork();
      const pick = ({ data, shape: [, n, dim] }: Tensor<'f32'>): Tensor<'f32'> =>
        f32Tensor(
          pathOf(row).flatMap((r) => [...data.subarray(r * n * dim, (r + 1) * n * dim)]),
          [pathOf(row).length, n, dim],
        );
      fork.append(0, pick(k), pick(v));
      const own = q.data.subarray(row * heads * 16, (row + 1) * heads * 16);
      attention(f32Tensor(own, [1, 1, heads, 16]), fork.layer(0), { stats });
      fork.dispose();
      return statsOf(stats);
    });
    const step = cache.step([{ sequence, tokens: tree.length, tree }]);
    step.append(0, k, v);
    step.attend(0, q, undefined, { stats });
    for (const [name, values] of Object.entries(statsOf(stats))) {
      const wanted = alone.flatMap((of) => of[name as keyof typeof of]);
      expectClose(`${name} of a tree`, values, wanted, 1e-5);
    }
    cache.dispose();
  });
});

describe('of an attention module', () => {
  test('over caches, whole or in parts, as over the tokens themselves', () => {
    const module = new GroupedQueryAttention({ dModel: 24, heads: 6, kvHeads: 2, rope: true });
    const x = f32Tensor(new Random(1).normals(2 * 50 * 24), [2, 50, 24]);
    const stats = new AttentionStats({ sinkTokens: 2, recentTokens: 5 });
    const options = { causal: true, window: 12, sinkTokens: 1, stats };
    module.forward(x, options);
    expect(stats.shape).toEqual([2, 50, 6]);
    const plain = statsOf(stats);
    // The smaller one takes a chunk in parts.
    for (const capacity of [60, 20]) {
      const cache = new KvCache({
        ...{ layers: 1, kvHeads: 2, headDim: 4, window: 12, sinkTokens: 1 },
        ...{ capacity, sequences: 2 },
      });
      module.forward(x, { cache: [cache.sequence(), cache.sequence()], stats });
      for (const [name, values] of Object.entries(statsOf(stats)))
        expectClose(
          `${name} over a cache of ${capacity}`,
          values,
          plain[name as keyof typeof plain],
          1e-5,
        );
      cache.dispose();
    }
  });
});
