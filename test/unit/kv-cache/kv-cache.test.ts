/** Caches and sequences: options, places, what append takes, the life of the handles. */
import { attention, attentionAsync, KvCache, Tensor } from '../../../lib';
import type { FloatDType, KvCacheOptions } from '../../../lib';
import { errorOf } from '../refusals';

const BASE: KvCacheOptions = { layers: 2, kvHeads: 2, headDim: 4, capacity: 20 };

function zeros(...shape: number[]): Tensor<'f32'> {
  return Tensor.zeros(shape);
}

describe('options', () => {
  test('have defaults', () => {
    const { keyDtype, window, sinkTokens, slack, sequences, valueDim } = new KvCache(BASE);
    expect({ keyDtype, window, sinkTokens, slack, sequences, valueDim }).toEqual({
      keyDtype: 'f32',
      window: Infinity,
      sinkTokens: 0,
      slack: 20,
      sequences: 1,
      valueDim: 4,
    });
    expect(new KvCache({ ...BASE, window: 12, sinkTokens: 3 }).slack).toBe(5);
    expect(new KvCache({ ...BASE, window: 12, slack: 2 }).slack).toBe(2);
  });

  test('bytes cover every slot of every layer and sequence', () => {
    const one = new KvCache(BASE).bytes;
    expect(one).toBeGreaterThanOrEqual(2 * 2 * 20 * (4 + 4) * 4);
    expect(new KvCache({ ...BASE, sequences: 3 }).bytes).toBe(3 * one);
    expect(new KvCache({ ...BASE, dtype: 'bf16' }).bytes).toBeLessThanOrEqual(one);
  });

  test.each([
    ['INVALID_ARGUMENT options', undefined],
    ['INVALID_ARGUMENT options', [1]],
    ['INVALID_ARGUMENT options.layers', { ...BASE, layers: undefined }],
    ['OUT_OF_RANGE options.layers', { ...BASE, layers: 0 }],
    ['OUT_OF_RANGE options.layers', { ...BASE, layers: 2 ** 17 }],
    ['INVALID_ARGUMENT options.kvHeads', { ...BASE, kvHeads: 1.5 }],
    ['NON_FINITE options.headDim', { ...BASE, headDim: NaN }],
    ['OUT_OF_RANGE options.headDim', { ...BASE, headDim: 2 ** 20 + 1 }],
    ['OUT_OF_RANGE options.valueDim', { ...BASE, valueDim: 0 }],
    ['OUT_OF_RANGE options.valueDim', { ...BASE, valueDim: 2 ** 21 }],
    ['OUT_OF_RANGE options.capacity', { ...BASE, capacity: 0 }],
    ['INVALID_DTYPE options.dtype', { ...BASE, dtype: 'q8_0' }],
    ['INVALID_DTYPE options.dtype', { ...BASE, dtype: 'i8' }],
    ['OUT_OF_RANGE options.window', { ...BASE, window: 0 }],
    ['INVALID_ARGUMENT options.window', { ...BASE, window: '8' }],
    ['OUT_OF_RANGE options.sinkTokens', { ...BASE, sinkTokens: -1 }],
    ['OUT_OF_RANGE options.sequences', { ...BASE, sequences: 0 }],
    ['OUT_OF_RANGE options.slack', { ...BASE, window: 8, slack: -1 }],
    ['OUT_OF_RANGE options.capacity', { ...BASE, window: 21 }],
    ['OUT_OF_RANGE options.capacity', { ...BASE, window: 10, sinkTokens: 11 }],
    ['OUT_OF_RANGE options.capacity', { ...BASE, window: 10, sinkTokens: 5, slack: 6 }],
    ['OUT_OF_RANGE options.capacity', { ...BASE, capacity: 2 ** 52 }],
    ['OUT_OF_RANGE options.capacity', { ...BASE, sequences: 2 ** 53 - 1 }],
    ['OUT_OF_RANGE options.capacity', { ...BASE, capacity: 1, sequences: 2 ** 31 }],
    ['OUT_OF_MEMORY options.capacity', { ...BASE, kvHeads: 64, headDim: 64, capacity: 2 ** 36 }],
  ])('refuses with %s (%#)', (expected, options) => {
    expect(errorOf(() => new KvCache(options as KvCacheOptions))).toBe(expected);
  });
});

describe('append', () => {
  test('takes [T, Hkv, D] and [1, T, Hkv, D] of any float dtype, and any T', () => {
    const seq = new KvCache({ ...BASE, layers: 1, window: 5 }).sequence();
    seq.append(0, zeros(3, 2, 4), zeros(1, 3, 2, 4));
    seq.append(0, zeros(0, 2, 4), zeros(0, 2, 4));
    for (const dtype of ['f16', 'bf16'] as FloatDType[]) {
      seq.append(0, zeros(1, 2, 4).to(dtype), zeros(1, 2, 4).to(dtype));
    }
    seq.append(0, zeros(100, 2, 4), zeros(100, 2, 4));
    expect([seq.length, seq.start]).toEqual([105, 85]);
  });

  const ok = zeros(1, 2, 4);
  const i32 = Tensor.zeros([1, 2, 4], 'i32') as unknown as Tensor<'f32'>;
  const gone = zeros(1, 2, 4);
  gone.dispose();
  test.each([
    ['INVALID_ARGUMENT k', 0, [1], ok],
    ['INVALID_ARGUMENT v', 0, ok, undefined],
    ['INVALID_DTYPE k', 0, i32, ok],
    ['INVALID_DTYPE v', 0, ok, ok.to('f16')],
    ['INVALID_RANK k', 0, zeros(2, 4), ok],
    ['INVALID_RANK v', 0, ok, zeros(1, 1, 1, 2, 4)],
    ['INVALID_SHAPE k', 0, zeros(1, 4, 2), ok],
    ['INVALID_SHAPE v', 0, ok, zeros(1, 2, 5)],
    ['INVALID_SHAPE v', 0, ok, zeros(2, 2, 4)],
    ['INVALID_SHAPE k', 0, zeros(2, 1, 2, 4), ok],
    ['DISPOSED k', 0, gone, ok],
    ['OUT_OF_RANGE layer', 2, ok, ok],
    ['OUT_OF_RANGE layer', -1, ok, ok],
    ['INVALID_ARGUMENT layer', '0', ok, ok],
    ['CAPACITY_EXCEEDED k', 0, zeros(21, 2, 4), zeros(21, 2, 4)],
  ])('refuses with %s (%#), nothing written', (expected, layer, k, v) => {
    const seq = new KvCache(BASE).sequence();
    const append = () => seq.append(layer as number, k as typeof ok, v as typeof ok);
    expect(errorOf(append)).toBe(expected);
    expect([seq.length, seq.layer(0).length]).toEqual([0, 0]);
    seq.append(0, zeros(20, 2, 4), zeros(20, 2, 4));
  });

  test('layers that advance unevenly are refused', () => {
    const seq = new KvCache(BASE).sequence();
    seq.append(1, ok, ok);
    expect(errorOf(() => seq.append(1, ok, ok))).toBe('LAYERS_UNEVEN layer');
    expect(errorOf(() => seq.append(0, zeros(2, 2, 4), zeros(2, 2, 4)))).toBe('LAYERS_UNEVEN k');
    expect([seq.length, seq.layer(0).length, seq.layer(1).length]).toEqual([0, 0, 1]);
    seq.truncate(0);
    expect(seq.layer(1).length).toBe(0);
  });
});

describe('sequences', () => {
  test('share the cache without touching one another, and their places are used again', () => {
    const cache = new KvCache({ ...BASE, layers: 1, kvHeads: 1, headDim: 1, sequences: 2 });
    const q = Tensor.from([0], [1, 1, 1, 1]);
    const fill = (value: number) => {
      const seq = cache.sequence();
      const tokens = Tensor.from(new Array<number>(20).fill(value), [20, 1, 1]);
      seq.append(0, tokens, tokens);
      return seq;
    };
    const first = fill(1);
    const second = fill(2);
    expect(errorOf(() => cache.sequence())).toBe('CAPACITY_EXCEEDED cache');
    for (let value = 3; value < 10; value++) {
      first.dispose();
      expect(attention(q, second.layer(0)).data[0]).toBe(2);
      const next = fill(value);
      expect(attention(q, next.layer(0)).data[0]).toBe(value);
      next.dispose();
      fill(value).dispose();
    }
    expect(cache.sequence().length).toBe(0);
  });

  test('are disposed with their cache; every method but dispose is then refused', () => {
    const cache = new KvCache(BASE);
    const seq = cache.sequence();
    const layer = seq.layer(1);
    expect(cache.bytes).toBeGreaterThan(0);
    cache.dispose();
    cache.dispose();
    cache[Symbol.dispose]();
    seq.dispose();
    seq[Symbol.dispose]();
    const ok = zeros(1, 2, 4);
    expect(cache.bytes).toBe(0);
    expect(errorOf(() => cache.sequence())).toBe('DISPOSED cache');
    expect(errorOf(() => seq.append(0, ok, ok))).toBe('DISPOSED sequence');
    expect(errorOf(() => seq.layer(0))).toBe('DISPOSED sequence');
    expect(errorOf(() => seq.truncate(0))).toBe('DISPOSED sequence');
    expect(errorOf(() => attention(zeros(1, 1, 2, 4), layer))).toBe('DISPOSED layer');
  });

  test('a disposed sequence refuses, its cache goes on', () => {
    const cache = new KvCache(BASE);
    const seq = cache.sequence();
    const layer = seq.layer(0);
    seq[Symbol.dispose]();
    expect(errorOf(() => seq.layer(0))).toBe('DISPOSED sequence');
    expect(errorOf(() => attention(zeros(1, 1, 2, 4), layer))).toBe('DISPOSED layer');
    cache.sequence().append(0, zeros(1, 2, 4), zeros(1, 2, 4));
  });

  test('are busy while an async call reads the cache', async () => {
    const cache = new KvCache({ ...BASE, sequences: 2 });
    const seq = cache.sequence();
    const other = cache.sequence();
    const ok = zeros(1, 2, 4);
    for (const layer of [0, 1]) seq.append(layer, ok, ok);
    const layer = seq.layer(0);
    const running = attentionAsync(zeros(1, 1, 2, 4), layer);
    expect(errorOf(() => cache.sequence())).toBe('BUSY cache');
    expect(errorOf(() => cache.dispose())).toBe('BUSY cache');
    expect(errorOf(() => seq.append(0, ok, ok))).toBe('BUSY sequence');
    expect(errorOf(() => other.append(0, ok, ok))).toBe('BUSY sequence');
    expect(errorOf(() => seq.truncate(0))).toBe('BUSY sequence');
    expect(errorOf(() => seq.layer(0))).toBe('BUSY sequence');
    expect(errorOf(() => seq.dispose())).toBe('BUSY sequence');
    expect(errorOf(() => attention(zeros(1, 1, 2, 4), layer))).toBe('BUSY layer');
    expect([seq.length, layer.length]).toEqual([1, 1]);
    await running;
    seq.append(0, ok, ok);
    cache.dispose();
  });
});
