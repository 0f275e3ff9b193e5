/** Caches of q8 and q4: what they take, what they refuse, how far they are from what was appended. */
import { attention, KvCache, Tensor } from '../../lib';
import { Random } from '../support/random';
import { axis } from '../support/samples';
import { f32Tensor, normals } from '../support/tensors';
import { storedTokens, UnboundedSequence } from '../support/unbounded-cache';

const { abs, max } = Math;

/** A value of one head as a cache holds it in a block that repeats it. */
function valueAsStored(values: number[], dtype: 'q8' | 'q4', rotate?: boolean): number[] {
  const shape = { layers: 1, kvHeads: 1, headDim: values.length, dtype, rotate };
  return storedTokens(shape, repeated(values), repeated(values)).v.slice(0, values.length);
}

/** A whole block of the same row. */
function repeated(row: number[]): number[] {
  return Array.from({ length: 64 }, () => row).flat();
}

describe.each(['q8', 'q4'] as const)('%s', (dtype) => {
  test('takes its bits a value, scales included, beside two blocks of f16', () => {
    const [keyBits, valueBits] = dtype === 'q8' ? [8.5, 8.5] : [4.5, 5];
    const cache = new KvCache({ layers: 2, kvHeads: 3, headDim: 64, capacity: 128, dtype });
    const perToken = (2 * 3 * 64 * (keyBits + valueBits)) / 8;
    expect(cache.bytesPerToken).toBe(perToken);
    expect(cache.bytes).toBe(128 * perToken + 2 * 3 * 2 * 64 * (64 + 64) * 2);
  });

  test.each([false, true])(
    'a block of one row gives its value as stored, rotated: %p',
    (rotate) => {
      const shape = { layers: 1, kvHeads: 1, headDim: 40, dtype, rotate };
      const sequence = new KvCache({ ...shape, capacity: 64 }).sequence();
      const values = normals(new Random(3), 40, 'f32', 7);
      const rows = f32Tensor(repeated(values), [64, 1, 40]);
      sequence.append(0, rows, rows);
      const out = attention(f32Tensor(values, [1, 1, 1, 40]), sequence.layer(0));
      const stored = valueAsStored(values, dtype, rotate);
      const most = max(...values.map(abs));
      // Half a step of a range of at most twice the largest, and f16's rounding of scale and minimum; turned, errors add up.
      const halfStep = (rotate ? 2 : 1) * (dtype === 'q8' ? 1 / 253 : 1 / 14.5);
      [...out.data].forEach((x, i) => {
        expect(abs(x - stored[i])).toBeLessThan(1e-4 * most);
        expect(abs(x - values[i])).toBeLessThan(halfStep * most);
      });
    },
  );

  test('a long tail of small weights counts', () => {
    const [tail, dims] = [63, 32];
    const shapes = { layers: 1, kvHeads: 1, headDim: dims, capacity: 64 };
    const cache = new KvCache({ ...shapes, dtype, rotate: false });
    const sequence = cache.sequence();
    // The first token weighs 600 times as much as each of the others, and its value is zero.
    const keys = new Array<number>((tail + 1) * dims).fill(0);
    keys[0] = 1;
    const values = keys.map((_, i) => (i < dims ? 0 : (i % dims) / (dims - 1)));
    const shape = [tail + 1, 1, dims];
    sequence.append(0, f32Tensor(keys, shape), f32Tensor(values, shape));
    const q = Tensor.zeros([1, 1, 1, dims]);
    q.data[0] = Math.log(600);
    const { data } = attention(q, sequence.layer(0), { scale: 1 });
    const most = tail / (600 + tail);
    const stored = valueAsStored(values.slice(dims, 2 * dims), dtype, false);
    [...data].forEach((x, i) => expect(abs(x - stored[i] * most)).toBeLessThan(0.05 * most));
  });

  test('zeros, constants, huge and tiny values stay what they are', () => {
    for (const value of [0, 1, -3.5, 60000, -65504, 0.01]) {
      const shape = { layers: 1, kvHeads: 1, headDim: 32, dtype, rotate: false };
      const cache = new KvCache({ ...shape, capacity: 64 });
      const sequence = cache.sequence();
      const rows = f32Tensor(new Array<number>(64 * 32).fill(value), [64, 1, 32]);
      sequence.append(0, rows, rows);
      const { data } = attention(Tensor.zeros([1, 1, 1, 32]), sequence.layer(0));
      for (const x of data) expect(abs(x - value)).toBeLessThanOrEqual(4e-3 * abs(value));
      cache.dispose();
    }
  });

  test.each([NaN, Infinity, -Infinity, 65536])('refuses %p before anything is written', (bad) => {
    const shape = { layers: 1, kvHeads: 2, headDim: 32, dtype };
    const cache = new KvCache({ ...shape, capacity: 80 });
    const mirror = new UnboundedSequence(shape, cache.sequence(), new Random(5));
    mirror.append(70);
    const good = Tensor.zeros([1, 2, 32]);
    const values = new Array<number>(64).fill(1);
    values[63] = bad;
    const rows = Tensor.from(values, [1, 2, 32]);
    const refusal = (argument: string): Error =>
      expect.objectContaining({ code: 'NON_FINITE', argument }) as Error;
    expect(() => mirror.sequence.append(0, rows, good)).toThrow(refusal('k'));
    expect(() => mirror.sequence.append(0, good, rows)).toThrow(refusal('v'));
    expect(mirror.sequence.length).toBe(70);
    mirror.check(0, 1, 3);
  });

  test('rotated rows stay within f16, or are refused', () => {
    for (const headDim of [32, 96, 512, 1024]) {
      const shape = { layers: 1, kvHeads: 1, headDim, dtype, rotate: true };
      const sequence = new KvCache({ ...shape, capacity: 64 }).sequence();
      const span = 2 ** Math.floor(Math.log2(headDim));
      const limit = 65504 / (span === headDim ? Math.sqrt(span) : span);
      const rowsOf = (value: number) =>
        f32Tensor(new Array<number>(64 * headDim).fill(value), [64, 1, headDim]);
      const above = rowsOf(limit + 0.5);
      const refusal = expect.objectContaining({ code: 'NON_FINITE', argument: 'k' }) as Error;
      expect(() => sequence.append(0, above, above)).toThrow(refusal);
      const rows = rowsOf(Math.fround(limit));
      sequence.append(0, rows, rows);
      const { data } = attention(Tensor.zeros([1, 1, 1, headDim]), sequence.layer(0));
      for (const x of data) expect(abs(x - limit)).toBeLessThan(5e-3 * limit);
    }
  });

  // Both sides of the row counts at which kernels change from integers to widened blocks.
  test.each(axis([1, 2, 5, 7, 13, 24, 25, 47, 48, 49, 60]))('%i queries, one head', (queries) => {
    const shape = { layers: 1, kvHeads: 2, headDim: 80, valueDim: 48, dtype };
    const cache = new KvCache({ ...shape, capacity: 200 });
    const mirror = new UnboundedSequence(shape, cache.sequence(), new Random(queries));
    mirror.append(150);
    mirror.check(0, queries, 1);
    mirror.check(0, queries, 1, { window: 20 });
    mirror.check(0, queries, 1, { causal: false });
  });

  test('a NaN or an Infinity in the query comes out as NaN', () => {
    const cache = new KvCache({ layers: 1, kvHeads: 1, headDim: 32, capacity: 8, dtype });
    const sequence = cache.sequence();
    const row = Tensor.from(new Array<number>(64).fill(1), [2, 1, 32]);
    sequence.append(0, row, row);
    for (const bad of [NaN, Infinity]) {
      const q = Tensor.zeros([1, 1, 1, 32]);
      q.data[3] = bad;
      for (const x of attention(q, sequence.layer(0)).data) expect(x).toBeNaN();
    }
  });
});

const PAIRS = [
  { k: 'q8', v: 'q4' },
  { k: 'q4', v: 'q8' },
  { k: 'f16', v: 'q8' },
  { k: 'q4', v: 'bf16' },
  { k: 'f32', v: 'f16' },
] as const;

describe.each(PAIRS)('keys of $k, values of $v', (dtype) => {
  test.each([
    { rotate: true, recent: 0, headDim: 48, valueDim: 33 },
    { rotate: false, recent: 70, headDim: 20, valueDim: 64 },
  ])('rotated: $rotate, $recent recent tokens in floats', ({ recent, ...shape }) => {
    const quantised = [dtype.k, dtype.v].some((name) => name.startsWith('q'));
    const ring = { layers: 1, kvHeads: 2, window: 130, sinkTokens: 70 };
    const cacheShape = { ...ring, ...shape, dtype, recent: quantised ? recent : 0 };
    const cache = new KvCache({ ...cacheShape, capacity: 300 });
    const mirror = new UnboundedSequence(cacheShape, cache.sequence(), new Random(9));
    for (const [tokens, back] of [
      [100, 0],
      [1, 0],
      [90, 40],
      [150, 95],
      [64, 1],
      [400, 0],
      [3, 60],
      [30, 0],
    ]) {
      mirror.append(tokens);
      mirror.check(0, Math.min(tokens, 9), 1);
      if (back > 0) mirror.truncate(mirror.length - back);
      mirror.check(0, 1, 2);
    }
    cache.dispose();
  });
});
