/** The attention modules without a cache: against float64, against each other, masks, dropout, parameters, errors. */
import { Tensor } from '../../../lib';
import {
  GroupedQueryAttention,
  MultiHeadAttention,
  MultiQueryAttention,
  Rope,
  type GroupedQueryAttentionOptions,
} from '../../../lib/nn';
import { expectClose } from '../../support/compare';
import { Random } from '../../support/random';
import { normals, tensor } from '../../support/tensors';
import { naiveAttention, type NaiveAttention, type Turn } from './naive';

/** Four projections and an attention, each near 1e-6 of values of about 1. */
const TOLERANCE = 1e-5;
const NAMES = ['query', 'key', 'value', 'output'] as const;
const BIASES = ['queryBias', 'keyBias', 'valueBias', 'outputBias'] as const;

/** The module's parameters, biases made random first, as the naive twin takes them. */
function twin(module: GroupedQueryAttention, turn?: Turn): NaiveAttention {
  const { heads, kvHeads, headDim } = module;
  if (module.hasBias) {
    const random = new Random(5);
    const sizes = {
      queryBias: heads * headDim,
      keyBias: kvHeads * headDim,
      valueBias: kvHeads * headDim,
    };
    for (const name of BIASES) {
      const size = { ...sizes, outputBias: module.dModel }[name];
      module.loadWeights({ [name]: tensor(normals(random, size, 'f32'), [size], 'f32') });
    }
  }
  const p = module.parameters();
  const [query, key, value, output] = NAMES.map((name) => p[name].toFloat32());
  const biases = BIASES.map((name) => p[name]?.toFloat32() ?? new Float32Array(0));
  return {
    heads,
    kvHeads,
    headDim,
    weights: { query, key, value, output },
    biases: module.hasBias
      ? { query: biases[0], key: biases[1], value: biases[2], output: biases[3] }
      : undefined,
    turn,
  };
}

const CASES: (GroupedQueryAttentionOptions & { turn?: Turn })[] = [
  { dModel: 32, heads: 4, kvHeads: 2 },
  { dModel: 32, heads: 4, kvHeads: 1, bias: true },
  { dModel: 24, heads: 3, kvHeads: 3, headDim: 10, seed: 3 },
  {
    dModel: 20,
    heads: 6,
    kvHeads: 2,
    headDim: 8,
    bias: true,
    rope: true,
    turn: { headDim: 8, rotaryDim: 8, theta: 10_000, interleaved: false },
  },
  {
    dModel: 14,
    heads: 7,
    kvHeads: 1,
    headDim: 12,
    rope: { theta: 100, interleaved: true, rotaryDim: 6 },
    turn: { headDim: 12, rotaryDim: 6, theta: 100, interleaved: true },
  },
];

describe.each(CASES)('%o', ({ turn, ...options }) => {
  const module = new GroupedQueryAttention(options);
  const naive = twin(module, turn);
  const { dModel } = module;
  afterAll(() => module.dispose());

  test.each([
    [1, 1, {}],
    [2, 7, {}],
    [2, 9, { causal: true }],
    [1, 12, { causal: true, window: 3, sinkTokens: 2 }],
  ])('x of batch %i, %i tokens, %o', (batch, tokens, features) => {
    const x = normals(new Random(tokens), batch * tokens * dModel, 'f32');
    const y = module.forward(tensor(x, [batch, tokens, dModel], 'f32'), features);
    expect([y.dtype, ...y.shape]).toEqual(['f32', batch, tokens, dModel]);
    expectClose(
      'y',
      y.data,
      naiveAttention(naive, { batch, q: x, k: x, v: x }, features),
      TOLERANCE,
    );
  });

  test.each([
    [2, 3, 8, {}],
    [1, 4, 6, { causal: true }],
    [1, 5, 2, {}],
  ])(
    'q, k and v apart: batch %i, %i queries, %i keys, %o',
    (batch, queryTokens, keyTokens, features) => {
      const random = new Random(queryTokens);
      const [q, k, v] = [queryTokens, keyTokens, keyTokens].map((n) =>
        normals(random, batch * n * dModel, 'f32'),
      );
      const t = (x: number[]) => tensor(x, [batch, x.length / batch / dModel, dModel], 'f32');
      const y = module.forward({ q: t(q), k: t(k), v: t(v) }, features);
      expectClose('y', y.data, naiveAttention(naive, { batch, q, k, v }, features), TOLERANCE);
    },
  );

  test.each(['f16', 'bf16'] as const)('%s inputs are computed in f32', (dtype) => {
    const x = normals(new Random(4), 5 * dModel, dtype);
    const y = module.forward(tensor(x, [1, 5, dModel], dtype));
    expectClose('y', y.data, naiveAttention(naive, { batch: 1, q: x, k: x, v: x }), TOLERANCE);
  });

  test.each([
    [1, 1],
    [2, 1],
    [1, module.heads],
    [2, module.heads],
  ])('mask [%i, %i, Tq, Tk]', (maskBatch, maskHeads) => {
    const [batch, tokens] = [2, 6];
    const random = new Random(maskBatch * 10 + maskHeads);
    const x = normals(random, batch * tokens * dModel, 'f32');
    const data = Uint8Array.from(
      { length: maskBatch * maskHeads * tokens * tokens },
      () => +random.chance(0.6),
    );
    const mask = Tensor.view(data, [maskBatch, maskHeads, tokens, tokens]);
    const y = module.forward(tensor(x, [batch, tokens, dModel], 'f32'), { mask });
    const plane = { data, batch: maskBatch, heads: maskHeads };
    expectClose(
      'y',
      y.data,
      naiveAttention(naive, { batch, q: x, k: x, v: x }, { mask: plane }),
      TOLERANCE,
    );
  });

  test.each([
    [0, 4],
    [2, 0],
  ])('batch %i of %i tokens', (batch, tokens) => {
    expect(module.forward(Tensor.zeros([batch, tokens, dModel])).shape).toEqual([
      batch,
      tokens,
      dModel,
    ]);
  });
});

test('MHA with the KV weights of each group repeated is GQA', () => {
  const gqa = new GroupedQueryAttention({
    dModel: 48,
    heads: 6,
    kvHeads: 2,
    headDim: 8,
    bias: true,
    rope: true,
  });
  const mha = new MultiHeadAttention({ dModel: 48, heads: 6, headDim: 8, bias: true, rope: true });
  twin(gqa);
  const p = gqa.parameters();
  // Query head h reads KV head floor(h / 3), so each KV head is repeated three times in place.
  const repeat = (t: Tensor<'f32' | 'f16' | 'bf16'>): Tensor<'f32'> => {
    const data = t.toFloat32();
    const head = data.length / 2;
    const rows = [0, 0, 0, 1, 1, 1].flatMap((h) => [...data.subarray(h * head, (h + 1) * head)]);
    return Tensor.from(rows, [t.shape[0] * 3, ...t.shape.slice(1)]);
  };
  mha.loadWeights({
    ...p,
    key: repeat(p.key),
    value: repeat(p.value),
    keyBias: repeat(p.keyBias!),
    valueBias: repeat(p.valueBias!),
  });
  const x = Tensor.from(normals(new Random(1), 2 * 9 * 48, 'f32'), [2, 9, 48]);
  const options = { causal: true };
  expectClose('y', mha.forward(x, options).data, gqa.forward(x, options).data, 2e-6);
});

test('the two ends', () => {
  const [mha, mqa] = [MultiHeadAttention, MultiQueryAttention].map(
    (End) => new End({ dModel: 64, heads: 8 }),
  );
  expect([mha.kvHeads, mha.headDim, mqa.kvHeads, mqa.headDim]).toEqual([8, 8, 1, 8]);
  expect(mha).toBeInstanceOf(GroupedQueryAttention);
});

describe('initial weights', () => {
  test('Xavier uniform, zero biases, the same for the same seed', () => {
    const make = (seed: number) =>
      new GroupedQueryAttention({
        dModel: 64,
        heads: 8,
        kvHeads: 2,
        bias: true,
        seed,
      }).parameters();
    const p = make(7);
    expect([p.query.shape, p.key.shape, p.value.shape, p.output.shape]).toEqual([
      [64, 64],
      [16, 64],
      [16, 64],
      [64, 64],
    ]);
    for (const [weight, fans] of [
      [p.query, 128],
      [p.key, 80],
    ] as const) {
      const values = weight.toFloat32();
      const bound = Math.sqrt(6 / fans);
      const largest = values.reduce((m, w) => Math.max(m, Math.abs(w)), 0);
      expect(largest).toBeLessThanOrEqual(bound);
      expect(largest).toBeGreaterThan(0.97 * bound);
      const variance = values.reduce((s, w) => s + w * w, 0) / values.length;
      expect(variance / (bound ** 2 / 3)).toBeCloseTo(1, 0.9);
    }
    expect(p.keyBias!.toFloat32()).toEqual(new Float32Array(16));
    expect(make(7).value.toFloat32()).toEqual(p.value.toFloat32());
    expect(make(8).value.toFloat32()).not.toEqual(p.value.toFloat32());
  });

  test('parameters() are copies', () => {
    const module = new MultiHeadAttention({ dModel: 8, heads: 2 });
    const x = Tensor.from(normals(new Random(1), 16, 'f32'), [1, 2, 8]);
    const before = module.forward(x).toFloat32();
    const p = module.parameters();
    (p.query.data as Float32Array).fill(9);
    expect(module.parameters().query.toFloat32()).not.toEqual(p.query.toFloat32());
    expect(module.forward(x).toFloat32()).toEqual(before);
  });
});

describe('loadWeights', () => {
  test.each(['f16', 'bf16'] as const)('keeps %s', (dtype) => {
    const module = new MultiQueryAttention({ dModel: 16, heads: 2 });
    const before = module.parameters();
    const values = normals(new Random(2), 8 * 16, dtype, 0.3);
    module.loadWeights({ key: tensor(values, [8, 16], dtype) });
    const after = module.parameters();
    expect(after.key.dtype).toBe(dtype);
    expect([...after.key.toFloat32()]).toEqual(values);
    expect(after.query.toFloat32()).toEqual(before.query.toFloat32());
    const x = normals(new Random(3), 48, 'f32');
    const expected = naiveAttention(twin(module), { batch: 1, q: x, k: x, v: x });
    expectClose('y', module.forward(tensor(x, [1, 3, 16], 'f32')).data, expected, TOLERANCE);
  });

  test('refuses what does not fit and keeps all', () => {
    const module = new MultiQueryAttention({ dModel: 16, heads: 2 });
    const before = module.parameters();
    const load = (weights: object) => () => module.loadWeights(weights);
    const fails = (code: string, argument: string) => expect.objectContaining({ code, argument });
    const query = Tensor.zeros([16, 16]);
    expect(load({ query, key: Tensor.zeros([16, 16]) })).toThrow(
      fails('INVALID_SHAPE', 'weights.key'),
    );
    expect(load({ query, queryBias: Tensor.zeros([16]) })).toThrow(
      fails('INVALID_ARGUMENT', 'weights'),
    );
    expect(load({ query, wq: query })).toThrow(fails('INVALID_ARGUMENT', 'weights'));
    expect(load({ query: Tensor.zeros([16, 16], 'i32') })).toThrow(
      fails('INVALID_DTYPE', 'weights.query'),
    );
    const plain = { shape: [16, 16], dtype: 'f32', data: new Float32Array(256) };
    expect(load({ query: plain })).toThrow(fails('INVALID_ARGUMENT', 'weights.query'));
    expect(load({ query: undefined })).toThrow(fails('INVALID_ARGUMENT', 'weights.query'));
    expect(load([query])).toThrow(fails('INVALID_ARGUMENT', 'weights'));
    expect(module.parameters().query.toFloat32()).toEqual(before.query.toFloat32());
  });
});

describe('dropout', () => {
  const options = { dModel: 24, heads: 3, kvHeads: 1, dropout: 0.5, seed: 11 };
  const x = Tensor.from(normals(new Random(6), 2 * 20 * 24, 'f32'), [2, 20, 24]);
  const run = (module: GroupedQueryAttention) => module.forward(x, { causal: true }).toFloat32();

  test('acts in training only', () => {
    const module = new GroupedQueryAttention(options);
    const plain = run(new GroupedQueryAttention({ ...options, dropout: 0 }));
    expect(run(module)).toEqual(plain);
    expect(run(module.train())).not.toEqual(plain);
    expect(run(module.eval())).toEqual(plain);
    expect(run(module.train(false))).toEqual(plain);
  });

  test('a new draw each call, the same sequence of draws for the same seed', () => {
    const [a, b, other] = [11, 11, 12].map((seed) => {
      const module = new GroupedQueryAttention({ ...options, seed });
      module.loadWeights(new GroupedQueryAttention(options).parameters());
      return module.train();
    });
    const draws = [run(a), run(a), run(a)];
    expect([run(b), run(b), run(b)]).toEqual(draws);
    expect(draws[0]).not.toEqual(draws[1]);
    expect(draws[1]).not.toEqual(draws[2]);
    expect(run(other)).not.toEqual(draws[0]);
  });

  test('keeps the mean', () => {
    const module = new GroupedQueryAttention(options);
    const plain = run(module);
    const mean = new Float64Array(plain.length);
    const calls = 400;
    module.train();
    for (let n = 0; n < calls; n++) run(module).forEach((y, i) => (mean[i] += y / calls));
    const distance = (a: ArrayLike<number>, b: ArrayLike<number>) =>
      Math.sqrt(Array.from(a, (y, i) => (y - b[i]) ** 2).reduce((s, y) => s + y, 0));
    // One draw is about as far from the plain result as that is from zero; the mean of n is sqrt(n) times nearer.
    expect(distance(mean, plain)).toBeLessThan(
      (3 * distance(run(module), plain)) / Math.sqrt(calls),
    );
  });
});

describe('misuse', () => {
  const options = { dModel: 16, heads: 4, kvHeads: 2 };
  test.each<[string, string, object]>([
    ['HEADS_NOT_DIVISIBLE', 'options.kvHeads', { kvHeads: 3 }],
    ['OUT_OF_RANGE', 'options.kvHeads', { kvHeads: 0 }],
    ['INVALID_SHAPE', 'options.dModel', { dModel: 18 }],
    ['INVALID_ARGUMENT', 'options.heads', { heads: '4' }],
    ['OUT_OF_RANGE', 'options.headDim', { headDim: 0 }],
    ['OUT_OF_RANGE', 'options.headDim', { headDim: 2 ** 21 }],
    ['INVALID_ARGUMENT', 'options.bias', { bias: 'yes' }],
    ['OUT_OF_RANGE', 'options.dropout', { dropout: 1 }],
    ['OUT_OF_RANGE', 'options.dropout', { dropout: -0.1 }],
    ['NON_FINITE', 'options.dropout', { dropout: NaN }],
    ['OUT_OF_RANGE', 'options.seed', { seed: -1 }],
    ['INVALID_ARGUMENT', 'options.rope', { rope: 10_000 }],
    ['OUT_OF_RANGE', 'rotaryDim', { rope: { rotaryDim: 8 } }],
    ['INVALID_SHAPE', 'options.rope', { rope: new Rope({ headDim: 8 }) }],
  ])('%s for %s: %o', (code, argument, wrong) => {
    expect(() => new GroupedQueryAttention({ ...options, ...wrong })).toThrow(
      expect.objectContaining({ code, argument }),
    );
  });

  test('no options at all', () => {
    for (const Module of [GroupedQueryAttention, MultiHeadAttention, MultiQueryAttention]) {
      const make = Module as unknown as new () => unknown;
      expect(() => new make()).toThrow(
        expect.objectContaining({ code: 'INVALID_ARGUMENT', argument: 'options' }),
      );
    }
  });

  const module = new GroupedQueryAttention(options);
  const x = Tensor.zeros([2, 3, 16]);
  const small = Tensor.zeros([2, 3, 8]);
  test.each<[string, string, unknown, unknown]>([
    ['INVALID_ARGUMENT', 'x', null, {}],
    ['INVALID_ARGUMENT', 'x', [1, 2], {}],
    ['INVALID_RANK', 'x', Tensor.zeros([3, 16]), {}],
    ['INVALID_SHAPE', 'x', small, {}],
    ['INVALID_DTYPE', 'x', Tensor.zeros([2, 3, 16], 'i8'), {}],
    ['INVALID_ARGUMENT', 'k', { q: x }, {}],
    ['INVALID_SHAPE', 'v', { q: x, k: x, v: small }, {}],
    ['INVALID_SHAPE', 'v', { q: x, k: x, v: Tensor.zeros([2, 4, 16]) }, {}],
    ['INVALID_SHAPE', 'k', { q: x, k: Tensor.zeros([1, 3, 16]), v: Tensor.zeros([1, 3, 16]) }, {}],
    ['INVALID_ARGUMENT', 'options', x, null],
    ['INVALID_ARGUMENT', 'options.causal', x, { causal: 1 }],
    ['OUT_OF_RANGE', 'options.window', x, { window: 0 }],
    ['OUT_OF_RANGE', 'options.sinkTokens', x, { sinkTokens: -1 }],
    ['INVALID_DTYPE', 'options.mask', x, { mask: Tensor.zeros([1, 1, 3, 3]) }],
    ['INVALID_RANK', 'options.mask', x, { mask: Tensor.zeros([3, 3], 'u8') }],
    ['INVALID_SHAPE', 'options.mask', x, { mask: Tensor.zeros([1, 2, 3, 3], 'u8') }],
    ['INVALID_SHAPE', 'options.mask', x, { mask: Tensor.zeros([1, 1, 3, 4], 'u8') }],
  ])('%s for %s', (code, argument, input, forwardOptions) => {
    expect(() => module.forward(input as Tensor, forwardOptions as object)).toThrow(
      expect.objectContaining({ code, argument }),
    );
  });

  test('a mode that is no boolean', () => {
    const fails = expect.objectContaining({ code: 'INVALID_ARGUMENT', argument: 'mode' });
    expect(() => module.train(1 as unknown as boolean)).toThrow(fails);
  });

  test('after dispose', () => {
    const disposed = new GroupedQueryAttention(options);
    disposed.dispose();
    disposed.dispose();
    for (const use of [
      () => disposed.forward(x),
      () => disposed.parameters(),
      () => disposed.loadWeights({}),
    ]) {
      expect(use).toThrow(expect.objectContaining({ code: 'DISPOSED' }));
    }
    const gone = Tensor.zeros([2, 3, 16]);
    gone.dispose();
    expect(() => module.forward(gone)).toThrow(
      expect.objectContaining({ code: 'DISPOSED', argument: 'x' }),
    );
  });
});
