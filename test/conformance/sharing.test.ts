/**
 * Forks, shared prefixes, rollbacks and steps of many sequences: whatever its history, a sequence gives bit for bit what
 * one gives that had its tokens appended at once, to a cache of its own.
 */
import { attention, GqaError, KvCache, Tensor } from '../../lib';
import type { CacheDType, KvCacheOptions, KvSequence } from '../../lib';
import { Random } from '../support/random';
import { expectClose, expectSameBits } from '../support/compare';
import { axis } from '../support/samples';
import { f32Tensor, normals } from '../support/tensors';

const KV_HEADS = 2;
const HEADS = 6;
const HEAD_DIM = 40;
const LAYERS = 2;
const DTYPES: CacheDType[] = ['f32', 'bf16', 'q8', 'q4'];

const BASE: KvCacheOptions = {
  layers: LAYERS,
  kvHeads: KV_HEADS,
  headDim: HEAD_DIM,
  capacity: 700,
  sequences: 9,
};

const random = new Random(31);

/** Numbers to take rows from; a prime, so that no stride falls into step with it. */
const POOL = normals(random, 10007, 'f32');

/** The key, and value, of a token id in a layer: the same whenever asked for. */
function rows(ids: readonly number[], layer: number, what: 'k' | 'v'): Tensor<'f32'> {
  const width = KV_HEADS * HEAD_DIM;
  const data = new Float32Array(ids.length * width);
  ids.forEach((id, row) => {
    const first = id * 613 + layer * 2003 + (what === 'k' ? 0 : 4001);
    for (let i = 0; i < width; i++) data[row * width + i] = POOL[(first + i) % POOL.length];
  });
  return Tensor.view(data, [ids.length, KV_HEADS, HEAD_DIM]);
}

function append(sequence: KvSequence, ids: readonly number[]): void {
  for (let layer = 0; layer < LAYERS; layer++) {
    sequence.append(layer, rows(ids, layer, 'k'), rows(ids, layer, 'v'));
  }
}

function query(tokens: number): Tensor<'f32'> {
  const data = normals(random, tokens * HEADS * HEAD_DIM, 'f32');
  return f32Tensor(data, [1, tokens, HEADS, HEAD_DIM]);
}

/** The sequence is what one with these tokens is. */
function expectTokens(sequence: KvSequence, ids: readonly number[], options: KvCacheOptions): void {
  expect(sequence.length).toBe(ids.length);
  const cache = new KvCache(options);
  const other = cache.sequence();
  append(other, ids);
  for (const tokens of [1, 2]) {
    const q = query(tokens);
    for (let layer = 0; layer < LAYERS; layer++) {
      const [a, b] = [sequence, other].map((s) => attention(q, s.layer(layer)));
      expectSameBits(`${tokens} rows, layer ${layer}`, a.data, b.data);
    }
  }
  cache.dispose();
}

let nextId = 0;
function newIds(count: number): number[] {
  return Array.from({ length: count }, () => nextId++);
}

describe.each(axis(DTYPES))('%s', (dtype) => {
  const options = { ...BASE, dtype };
  const windowed = { ...options, capacity: 300, window: 200, sinkTokens: 5 };

  test.each([
    ['unwindowed', options, 200],
    ['windowed and wrapped', windowed, 900],
  ])('a fork and its parent go their own ways, %s', (_, given, count) => {
    const cache = new KvCache(given);
    const ids = newIds(count);
    const parent = cache.sequence();
    append(parent, ids);
    const used = cache.usedBytes;
    const fork = parent.fork();
    expect(cache.usedBytes).toBe(used);
    const [a, b, c] = [newIds(3), newIds(150), newIds(70)];
    append(parent, a);
    append(fork, b);
    expectTokens(parent, [...ids, ...a], given);
    expectTokens(fork, [...ids, ...b], given);
    const second = fork.fork();
    fork.dispose();
    append(second, c);
    expectTokens(second, [...ids, ...b, ...c], given);
    expectTokens(parent, [...ids, ...a], given);
    second.dispose();
    parent.dispose();
    expect(cache.usedBytes).toBe(0);
    cache.dispose();
  });

  test('drafts of which some are kept', () => {
    const cache = new KvCache(windowed);
    const sequence = cache.sequence();
    let ids = newIds(50);
    append(sequence, ids);
    for (let round = 0; round < 60; round++) {
      const draft = newIds(1 + (round % 8));
      append(sequence, draft);
      const kept = draft.slice(0, round % (draft.length + 1));
      sequence.truncate(ids.length + kept.length);
      ids = [...ids, ...kept];
      if (round % 12 === 11) expectTokens(sequence, ids, windowed);
    }
    cache.dispose();
  });

  test('a shared prefix outlives its sequence, and is found as far as it goes', () => {
    const cache = new KvCache({ ...options, prefixTokens: 640 });
    const ids = newIds(300);
    const first = cache.sequence();
    append(first, ids);
    expect(first.share(ids)).toBe(256);
    expect(cache.sharedTokens).toBe(256);
    first.dispose();
    const all = cache.lookup(ids);
    expect(all.length).toBe(256);
    append(all, ids.slice(256));
    expectTokens(all, ids, options);
    const branch = [...ids.slice(0, 130), ...newIds(100)];
    const half = cache.lookup(branch);
    expect(half.length).toBe(128);
    append(half, branch.slice(128));
    expectTokens(half, branch, options);
    expect(half.share(branch)).toBe(192);
    expect(cache.sharedTokens).toBe(320);
    expect(cache.lookup(newIds(100)).length).toBe(0);
    // What was shared stays as it was, whatever becomes of who uses it.
    all.truncate(100);
    append(all, newIds(60));
    const again = cache.lookup(ids);
    append(again, ids.slice(256));
    expectTokens(again, ids, options);
    cache.dispose();
  });

  test('a step of ragged entries is what each sequence gives alone', () => {
    const cache = new KvCache({ ...options, capacity: 1500 });
    const histories = [1, 64, 333, 900, 70].map((count) => newIds(count));
    const sequences = histories.map((ids) => {
      const sequence = cache.sequence();
      append(sequence, ids);
      return sequence;
    });
    const counts = [1, 5, 1, 2, 66];
    const nexts = counts.map((count) => newIds(count));
    const step = cache.step(sequences.map((sequence, i) => ({ sequence, tokens: counts[i] })));
    const ids = nexts.flat();
    expect([...step.positions]).toEqual(
      counts.flatMap((n, i) => Array.from({ length: n }, (__, t) => histories[i].length + t)),
    );
    for (let layer = 0; layer < LAYERS; layer++) {
      step.append(layer, rows(ids, layer, 'k'), rows(ids, layer, 'v'));
      const q = query(ids.length).data;
      const shape = [ids.length, HEADS, HEAD_DIM];
      const out = step.attend(layer, f32Tensor(q, shape));
      let row = 0;
      sequences.forEach((sequence, i) => {
        const [from, to] = [row, (row += counts[i])].map((r) => r * HEADS * HEAD_DIM);
        const own = f32Tensor(q.slice(from, to), [1, counts[i], HEADS, HEAD_DIM]);
        const alone = attention(own, sequence.layer(layer)).data;
        expectSameBits(`entry ${i}`, out.data.slice(from, to), alone);
      });
    }
    sequences.forEach((sequence, i) => {
      expectTokens(sequence, [...histories[i], ...nexts[i]], { ...options, capacity: 1500 });
    });
    cache.dispose();
  });

  test('cascade over a shared prefix, and memory of one prefix', () => {
    const cache = new KvCache(options);
    const prefix = newIds(400);
    const first = cache.sequence();
    append(first, prefix);
    const sequences = [first, ...Array.from({ length: 7 }, () => first.fork())];
    const used = cache.usedBytes;
    const bytesOfBlocks = (blocks: number): number => (blocks * cache.bytes) / blockCount(cache);
    sequences.forEach((sequence, i) => append(sequence, newIds(1 + 9 * i)));
    // All but one have copied their last block, and two have outgrown it.
    if (dtype === 'f32') expect(cache.usedBytes - used).toBe(bytesOfBlocks(7 + 2));
    const results = [true, false].map((cascade) => {
      const entries = sequences.map((sequence) => ({ sequence, tokens: 2 }));
      const step = cache.step(entries, { cascade });
      const ids = Array.from({ length: 16 }, (_, i) => 1_000_000 + i);
      const q = f32Tensor(normals(new Random(4), 16 * HEADS * HEAD_DIM, 'f32'), [
        16,
        HEADS,
        HEAD_DIM,
      ]);
      const outs = [0, 1].map((layer) => {
        step.append(layer, rows(ids, layer, 'k'), rows(ids, layer, 'v'));
        return step.attend(layer, q);
      });
      for (const sequence of sequences) sequence.truncate(sequence.length - 2);
      return outs;
    });
    const tolerance = { f32: 2e-6, f16: 2e-6, bf16: 2e-6, q8: 1e-3, q4: 3e-2 }[dtype];
    results[0].forEach((out, layer) => {
      expectClose(`layer ${layer}`, [...out.data], [...results[1][layer].data], tolerance);
    });
    cache.dispose();
  });

  test('of a tree of drafts a path is kept', () => {
    for (const length of [10, 60, 127]) {
      const cache = new KvCache(options);
      const sequence = cache.sequence();
      const history = newIds(length);
      append(sequence, history);
      const drafts = newIds(7);
      const tree = [-1, 0, 0, 1, -1, 2, 5];
      const step = cache.step([{ sequence, tokens: 7, tree }]);
      const path = [0, 2, 5, 6];
      for (let layer = 0; layer < LAYERS; layer++) {
        step.append(layer, rows(drafts, layer, 'k'), rows(drafts, layer, 'v'));
        const q = query(7);
        const out = step.attend(layer, f32Tensor(q.data, [7, HEADS, HEAD_DIM]));
        const chain = new KvCache({ ...options, dtype: 'f32' });
        const reference = chain.sequence();
        append(reference, [...history, ...path.map((i) => drafts[i])]);
        const width = HEADS * HEAD_DIM;
        const own = path.flatMap((i) => [...q.data.slice(i * width, (i + 1) * width)]);
        const expected = attention(
          f32Tensor(own, [1, path.length, HEADS, HEAD_DIM]),
          reference.layer(layer),
        );
        const actual = path.flatMap((i) => [...out.data.slice(i * width, (i + 1) * width)]);
        const tolerance = { f32: 2e-6, f16: 1e-3, bf16: 1e-2, q8: 1e-2, q4: 0.15 }[dtype];
        expectClose(`tree over ${length}`, actual, [...expected.data], tolerance);
        chain.dispose();
      }
      step.keep(0, path);
      const kept = [...history, ...path.map((i) => drafts[i])];
      expectTokens(sequence, kept, options);
      append(sequence, newIds(0));
      const more = newIds(90);
      append(sequence, more);
      expectTokens(sequence, [...kept, ...more], options);
      cache.dispose();
    }
  });
});

test('a step after one that only a layer had appended reads what each layer still holds', () => {
  const cache = new KvCache({ ...BASE, dtype: 'q8', recent: 128 });
  const sequence = cache.sequence();
  append(sequence, newIds(300));
  const dropped = newIds(200);
  sequence.append(0, rows(dropped, 0, 'k'), rows(dropped, 0, 'v'));
  sequence.truncate(300);
  const step = cache.step([{ sequence, tokens: 1 }]);
  const ids = newIds(1);
  // The layer whose tail holds most comes first.
  for (const layer of [1, 0]) {
    step.append(layer, rows(ids, layer, 'k'), rows(ids, layer, 'v'));
    const q = query(1);
    const out = step.attend(layer, f32Tensor(q.data, [1, HEADS, HEAD_DIM]));
    const alone = attention(q, sequence.layer(layer));
    expectClose(`layer ${layer}`, out.data, alone.data, 1e-3);
  }
  cache.dispose();
});

/** Blocks of 64 tokens that a cache of BASE has. */
function blockCount(cache: KvCache): number {
  return cache.groups[0].pool.blocks;
}

test('layers of different shape, as in models with local and global attention', () => {
  const cache = new KvCache({
    layers: [
      { window: 100, kvHeads: 1, headDim: 24 },
      { kvHeads: 3, headDim: 16, valueDim: 8 },
      { window: 100, sinkTokens: 2, kvHeads: 2, headDim: 40 },
    ],
    capacity: 1200,
  });
  const whole = new KvCache({
    layers: [
      { kvHeads: 1, headDim: 24 },
      { kvHeads: 3, headDim: 16, valueDim: 8 },
      { kvHeads: 2, headDim: 40 },
    ],
    capacity: 1200,
  });
  expect(cache.bytes).toBeLessThan(0.7 * whole.bytes);
  const [local, all] = [cache.sequence(), whole.sequence()];
  for (const tokens of [1, 200, 64, 3, 250, 100, 1]) {
    for (let layer = 0; layer < 3; layer++) {
      const { kvHeads, headDim, valueDim } = local.layer(layer);
      const [k, v] = [headDim, valueDim].map((dim) =>
        f32Tensor(normals(random, tokens * kvHeads * dim, 'f32'), [tokens, kvHeads, dim]),
      );
      local.append(layer, k, v);
      all.append(layer, k, v);
      const q = f32Tensor(normals(random, kvHeads * 2 * headDim, 'f32'), [
        1,
        1,
        kvHeads * 2,
        headDim,
      ]);
      const { window, sinkTokens } = local.layer(layer);
      const expected = attention(q, all.layer(layer), { window, sinkTokens });
      const actual = attention(q, local.layer(layer));
      expectClose(`layer ${layer}`, [...actual.data], [...expected.data], 2e-6);
    }
  }
  expect(local.start).toBeGreaterThan(0);
  expect(() => local.share([1, 2, 3])).toThrow(GqaError);
  expect(() => local.truncate(100)).toThrow('oldest position still held');
  local.truncate(local.length - 200);
  cache.dispose();
  whole.dispose();
});
