/** The attention modules over a KV cache: token by token, in chunks and at once are the same. */
import { KvCache, Tensor, type KvCacheOptions, type KvSequence } from '../../../lib';
import { GroupedQueryAttention, MultiHeadAttention, MultiQueryAttention } from '../../../lib/nn';
import { expectClose } from '../../support/compare';
import { Random } from '../../support/random';
import { normals } from '../../support/tensors';

/** Four projections and an attention, twice over. */
const TOLERANCE = 1e-5;

type Input = Tensor<'f32'>;

function randomInput(batch: number, tokens: number, dModel: number): Input {
  return Tensor.from(normals(new Random(tokens * 7 + batch), batch * tokens * dModel, 'f32'), [
    batch,
    tokens,
    dModel,
  ]);
}

/** Tokens [from, to) of every batch row of x [B, T, ...]. */
function tokens(x: Tensor, from: number, to: number): Input {
  const [batch, all, dModel] = x.shape;
  const data = x.toFloat32();
  const rows = Array.from({ length: batch }, (_, b) => [
    ...data.subarray((b * all + from) * dModel, (b * all + to) * dModel),
  ]);
  return Tensor.from(rows.flat(), [batch, to - from, dModel]);
}

function cacheFor(module: GroupedQueryAttention, options: Partial<KvCacheOptions>): KvCache {
  const { kvHeads, headDim } = module;
  return new KvCache({ layers: 1, kvHeads, headDim, capacity: 64, ...options });
}

/** Feeds x in chunks of these lengths and compares each chunk's result with `whole`. */
function feed(
  module: GroupedQueryAttention,
  x: Input,
  whole: Tensor,
  cache: KvSequence | KvSequence[],
  lengths: number[],
  tolerance = TOLERANCE,
): void {
  let at = 0;
  for (const length of lengths) {
    const y = module.forward(tokens(x, at, at + length), { cache });
    expect(y.shape).toEqual([x.shape[0], length, module.dModel]);
    expectClose(`tokens ${at} + ${length}`, y.data, tokens(whole, at, at + length).data, tolerance);
    at += length;
  }
}

test('the classic lesson: batch 2, 10 tokens, 8 heads, model dim 512, 4 KV heads', () => {
  const attn = new GroupedQueryAttention({ dModel: 512, heads: 8, kvHeads: 4 });
  const x = randomInput(2, 10, 512);
  const whole = attn.forward(x, { causal: true });
  expect(whole.shape).toEqual([2, 10, 512]);

  const cache = new KvCache({ layers: 1, kvHeads: 4, headDim: 64, capacity: 10, sequences: 2 });
  const sequences = [cache.sequence(), cache.sequence()];
  for (let t = 0; t < 10; t++) {
    const y = attn.forward(tokens(x, t, t + 1), { cache: sequences });
    expect(y.shape).toEqual([2, 1, 512]);
    expectClose(`token ${t}`, y.data, tokens(whole, t, t + 1).data, TOLERANCE);
  }
  expect(sequences.map((s) => s.length)).toEqual([10, 10]);
  expect(() => attn.forward(tokens(x, 0, 1), { cache: sequences })).toThrow(
    expect.objectContaining({ code: 'CAPACITY_EXCEEDED' }),
  );
});

const MODULES: [string, () => GroupedQueryAttention][] = [
  [
    'GQA with bias',
    () => new GroupedQueryAttention({ dModel: 24, heads: 6, kvHeads: 2, bias: true }),
  ],
  [
    'GQA with RoPE',
    () => new GroupedQueryAttention({ dModel: 32, heads: 4, kvHeads: 2, rope: true }),
  ],
  [
    'GQA with interleaved RoPE on a part, heads of another size',
    () =>
      new GroupedQueryAttention({
        dModel: 18,
        heads: 6,
        kvHeads: 3,
        headDim: 10,
        rope: { interleaved: true, rotaryDim: 4, theta: 500 },
      }),
  ],
  ['MHA', () => new MultiHeadAttention({ dModel: 32, heads: 4, rope: true, bias: true })],
  ['MQA', () => new MultiQueryAttention({ dModel: 35, heads: 7, headDim: 6, rope: true })],
];

describe.each(MODULES)('%s', (_, make) => {
  const module = make();
  const x = randomInput(1, 41, module.dModel);
  const SPLITS: [string, number[]][] = [
    ['token by token', new Array<number>(41).fill(1)],
    ['chunks', [0, 5, 1, 1, 17, 0, 16, 1]],
    ['at once', [41]],
  ];

  test.each(SPLITS)('full cache, %s', (__, lengths) => {
    const sequence = cacheFor(module, {}).sequence();
    feed(module, x, module.forward(x, { causal: true }), sequence, lengths);
  });

  // Slack 0 holds a single token beside the window; chunks are cut inside.
  describe.each([0, 3, 40])('window 7, 2 sinks, slack %i', (slack) => {
    test.each(SPLITS)('%s', (__, lengths) => {
      const window = { window: 7, sinkTokens: 2 };
      const whole = module.forward(x, { causal: true, ...window });
      const sequence = cacheFor(module, { ...window, capacity: 9 + slack }).sequence();
      feed(module, x, whole, sequence, lengths);
      expect(sequence.length).toBe(41);
    });
  });

  test.each(['f16', 'bf16'] as const)('%s storage stays near', (dtype) => {
    const sequence = cacheFor(module, { dtype }).sequence();
    feed(
      module,
      x,
      module.forward(x, { causal: true }),
      sequence,
      [30, 1, 10],
      dtype === 'f16' ? 2e-3 : 1.6e-2,
    );
  });

  test('goes on after a rollback', () => {
    const sequence = cacheFor(module, {}).sequence();
    feed(module, x, module.forward(x, { causal: true }), sequence, [20]);
    sequence.truncate(13);
    const rest = tokens(x, 13, 41);
    const whole = tokens(module.forward(x, { causal: true }), 13, 41);
    expectClose('rest', module.forward(rest, { cache: sequence }).data, whole.data, TOLERANCE);
  });
});

describe('batch rows', () => {
  const module = new GroupedQueryAttention({ dModel: 16, heads: 4, kvHeads: 2, rope: true });

  test('may have sequences of different lengths', () => {
    const cache = cacheFor(module, { sequences: 2 });
    const [a, b] = [cache.sequence(), cache.sequence()];
    const [x, y] = [randomInput(1, 9, 16), randomInput(1, 5, 16)];
    module.forward(tokens(x, 0, 7), { cache: a });
    module.forward(tokens(y, 0, 3), { cache: b });
    const both = Tensor.from([...tokens(x, 7, 9).data, ...tokens(y, 3, 5).data], [2, 2, 16]);
    const out = module.forward(both, { cache: [a, b] });
    const whole = [x, y].map((z) => module.forward(z, { causal: true }));
    const expected = [...tokens(whole[0], 7, 9).data, ...tokens(whole[1], 3, 5).data];
    expectClose('both', out.data, expected, TOLERANCE);
  });

  test('nothing is appended to any where one does not fit', () => {
    const cache = cacheFor(module, { sequences: 2, capacity: 4 });
    const sequences = [cache.sequence(), cache.sequence()];
    module.forward(randomInput(1, 2, 16), { cache: sequences[1] });
    expect(() => module.forward(randomInput(2, 3, 16), { cache: sequences })).toThrow(
      expect.objectContaining({ code: 'CAPACITY_EXCEEDED' }),
    );
    expect(sequences.map((s) => [s.length, s.layer(0).length])).toEqual([
      [0, 0],
      [2, 2],
    ]);
  });
});

describe('several layers of one cache', () => {
  const [first, second] = [1, 2].map(
    (seed) => new GroupedQueryAttention({ dModel: 16, heads: 4, kvHeads: 1, rope: true, seed }),
  );
  const x = randomInput(1, 30, 16);
  const stack = (input: Input, options: (layer: number) => object) =>
    second.forward(first.forward(input, options(0)), options(1));

  test.each([
    ['without a window', {}, [4, 1, 20, 5]],
    ['within the window', { window: 6, sinkTokens: 1, capacity: 12 }, [6, 1, 6, 6, 6, 5]],
    ['a first chunk beyond the window', { window: 6, sinkTokens: 1, capacity: 12 }, [25, 1, 4]],
  ])('%s', (_, options, lengths) => {
    const cache = new KvCache({ layers: 2, kvHeads: 1, headDim: 4, capacity: 30, ...options });
    const sequence = cache.sequence();
    const { window, sinkTokens } = cache;
    const whole = stack(x, () => ({ causal: true, window, sinkTokens }));
    let at = 0;
    for (const length of lengths) {
      const y = stack(tokens(x, at, at + length), (layer) => ({ cache: sequence, layer }));
      expectClose(`at ${at}`, y.data, tokens(whole, at, at + length).data, TOLERANCE);
      at += length;
    }
  });

  test('a later chunk beyond the window cannot be cut, and is refused before anything is appended', () => {
    const cache = new KvCache({
      layers: 2,
      kvHeads: 1,
      headDim: 4,
      capacity: 12,
      window: 6,
      sinkTokens: 1,
    });
    const sequence = cache.sequence();
    stack(tokens(x, 0, 10), (layer) => ({ cache: sequence, layer }));
    expect(() => first.forward(tokens(x, 10, 17), { cache: sequence })).toThrow(
      expect.objectContaining({
        code: 'POSITION_EVICTED',
        expected: expect.stringContaining('at most 6 tokens'),
      }),
    );
    expect(sequence.layer(0).length).toBe(10);
    stack(tokens(x, 10, 16), (layer) => ({ cache: sequence, layer }));
    expect(sequence.length).toBe(16);
  });

  test('layers must take turns', () => {
    const cache = new KvCache({ layers: 2, kvHeads: 1, headDim: 4, capacity: 12 });
    const sequence = cache.sequence();
    first.forward(tokens(x, 0, 2), { cache: sequence });
    const uneven = expect.objectContaining({ code: 'LAYERS_UNEVEN' });
    expect(() => first.forward(tokens(x, 2, 3), { cache: sequence })).toThrow(uneven);
    expect(() => second.forward(tokens(x, 0, 3), { cache: sequence, layer: 1 })).toThrow(uneven);
  });
});

describe('features over a cache', () => {
  const module = new GroupedQueryAttention({ dModel: 16, heads: 4, kvHeads: 2, rope: true });
  const x = randomInput(1, 20, 16);

  test.each([1, 4])('a mask with %i heads, whole and cut', (heads) => {
    const random = new Random(heads);
    const data = Uint8Array.from({ length: heads * 20 * 20 }, () => +random.chance(0.7));
    const mask = Tensor.view(data, [1, heads, 20, 20]);
    const whole = module.forward(x, { causal: true, mask });
    expectClose(
      'one',
      module.forward(x, { cache: cacheFor(module, {}).sequence(), mask }).data,
      whole.data,
      TOLERANCE,
    );
    const windowed = module.forward(x, { causal: true, window: 5, mask });
    const small = cacheFor(module, { window: 5, capacity: 7 }).sequence();
    expectClose('cut', module.forward(x, { cache: small, mask }).data, windowed.data, TOLERANCE);
  });

  test('a mask over what was appended before, too', () => {
    const random = new Random(3);
    const data = Uint8Array.from({ length: 20 * 20 }, () => +random.chance(0.7));
    const whole = module.forward(x, { causal: true, mask: Tensor.view(data, [1, 1, 20, 20]) });
    const sequence = cacheFor(module, {}).sequence();
    for (const [from, to] of [
      [0, 12],
      [12, 13],
      [13, 20],
    ]) {
      const rows = Array.from({ length: to - from }, (_, i) => {
        const row = (from + i) * 20;
        return [...data.subarray(row, row + to)];
      });
      const mask = Tensor.from(rows.flat(), [1, 1, to - from, to], 'u8');
      const y = module.forward(tokens(x, from, to), { cache: sequence, mask });
      expectClose(`from ${from}`, y.data, tokens(whole, from, to).data, TOLERANCE);
    }
  });

  test('a mask for each batch row', () => {
    const both = Tensor.from([...x.data, ...x.data.map((v) => -v)], [2, 20, 16]);
    const random = new Random(9);
    const data = Uint8Array.from({ length: 2 * 20 * 20 }, () => +random.chance(0.7));
    const mask = Tensor.view(data, [2, 1, 20, 20]);
    const cache = cacheFor(module, { sequences: 2 });
    const y = module.forward(both, { cache: [cache.sequence(), cache.sequence()], mask });
    expectClose('y', y.data, module.forward(both, { causal: true, mask }).data, TOLERANCE);
  });

  test('a narrower window than the cache has', () => {
    const sequence = cacheFor(module, { window: 12, sinkTokens: 2, capacity: 40 }).sequence();
    const narrow = { window: 4, sinkTokens: 1 };
    const y = module.forward(x, { cache: sequence, ...narrow });
    expectClose('y', y.data, module.forward(x, { causal: true, ...narrow }).data, TOLERANCE);
  });

  test('not causal: a memory that later queries read without adding to it', () => {
    const plain = new GroupedQueryAttention({ dModel: 16, heads: 4, kvHeads: 2 });
    const sequence = cacheFor(plain, {}).sequence();
    plain.forward(x, { cache: sequence, causal: false });
    const q = randomInput(1, 3, 16);
    const nothing = Tensor.zeros([1, 0, 16]);
    const y = plain.forward({ q, k: nothing, v: nothing }, { cache: sequence, causal: false });
    expectClose('y', y.data, plain.forward({ q, k: x, v: x }).data, TOLERANCE);
    expect(sequence.length).toBe(20);
  });

  test('dropout draws anew for every step', () => {
    const training = new GroupedQueryAttention({
      dModel: 16,
      heads: 4,
      kvHeads: 2,
      dropout: 0.5,
    }).train();
    const run = () => training.forward(x, { cache: cacheFor(training, {}).sequence() }).toFloat32();
    expect(run()).not.toEqual(run());
  });
});

describe('misuse', () => {
  const module = new GroupedQueryAttention({ dModel: 16, heads: 4, kvHeads: 2 });
  const x = randomInput(1, 3, 16);
  const cache = cacheFor(module, { sequences: 4, window: 4, sinkTokens: 1, capacity: 9 });
  const sequence = cache.sequence();
  const other = (options: Partial<KvCacheOptions>) => cacheFor(module, options).sequence();
  const CASES: [string, string, object][] = [
    ['INVALID_ARGUMENT', 'options.cache', { cache }],
    ['INVALID_ARGUMENT', 'options.cache', { cache: null }],
    ['INVALID_SHAPE', 'options.cache', { cache: [] }],
    ['INVALID_SHAPE', 'options.cache', { cache: [sequence, cache.sequence()] }],
    ['INVALID_SHAPE', 'options.cache', { cache: other({ kvHeads: 4 }) }],
    ['INVALID_SHAPE', 'options.cache', { cache: other({ headDim: 8 }) }],
    ['INVALID_SHAPE', 'options.cache', { cache: other({ valueDim: 8 }) }],
    ['OUT_OF_RANGE', 'options.layer', { cache: sequence, layer: 1 }],
    ['OUT_OF_RANGE', 'options.layer', { cache: sequence, layer: -1 }],
    ['INVALID_ARGUMENT', 'options.window', { cache: sequence, window: 5 }],
    ['INVALID_ARGUMENT', 'options.sinkTokens', { cache: sequence, sinkTokens: 2 }],
    ['INVALID_SHAPE', 'options.mask', { cache: sequence, mask: Tensor.zeros([1, 1, 3, 4], 'u8') }],
  ];
  test.each(CASES)('%s for %s', (code, argument, options) => {
    expect(() => module.forward(x, options)).toThrow(expect.objectContaining({ code, argument }));
    expect(sequence.layer(0).length).toBe(0);
  });

  test('the same sequence for two rows', () => {
    expect(() => module.forward(randomInput(2, 1, 16), { cache: [sequence, sequence] })).toThrow(
      expect.objectContaining({ code: 'INVALID_ARGUMENT', argument: 'options.cache' }),
    );
  });

  test('a disposed sequence', () => {
    const gone = cache.sequence();
    gone.dispose();
    expect(() => module.forward(x, { cache: gone })).toThrow(
      expect.objectContaining({ code: 'DISPOSED', argument: 'options.cache' }),
    );
  });
});
