/** Every refusal of attention over tensors and over a cache, and that nothing is written before one. */
import { attention, KvCache, Tensor } from '../../../lib';
import type { AttentionOptions, DType, FloatDType } from '../../../lib';
import { errorOf } from '../refusals';

type Loose = Record<string, unknown>;

const zeros = (shape: number[], dtype: DType = 'f32') => Tensor.zeros(shape, dtype);
/** batch 2, 3 queries of 4 heads, 5 keys of 2 heads, dim 8, value dim 6 */
const Q = [2, 3, 4, 8];
const K = [2, 5, 2, 8];
const V = [2, 5, 2, 6];
const OUT = [2, 3, 4, 6];

/** attention with arguments that TypeScript would refuse. */
const call = attention as unknown as (...args: unknown[]) => Tensor;

function over(options: Loose, q = zeros(Q), k = zeros(K), v = zeros(V)): () => Tensor {
  return () => call(q, k, v, options);
}

describe('over tensors', () => {
  test.each([
    ['INVALID_ARGUMENT q', () => call([1], zeros(K), zeros(V))],
    ['INVALID_ARGUMENT k', () => call(zeros(Q), {}, zeros(V))],
    ['INVALID_ARGUMENT v', () => call(zeros(Q), zeros(K))],
    ['INVALID_ARGUMENT options', () => call(zeros(Q), zeros(K), zeros(V), 3)],
    ['INVALID_ARGUMENT options', () => call(zeros(Q), zeros(K), zeros(V), null)],
    ['INVALID_ARGUMENT options', () => call(zeros(Q), zeros(K), zeros(V), zeros(OUT))],
    ['INVALID_RANK q', over({}, zeros([3, 4, 8]))],
    ['INVALID_RANK k', over({}, zeros(Q), zeros([5, 2, 8]))],
    ['INVALID_RANK v', over({}, zeros(Q), zeros(K), zeros([1, 2, 5, 2, 6]))],
    ['INVALID_SHAPE k', over({}, zeros(Q), zeros([1, 5, 2, 8]))],
    ['INVALID_SHAPE k', over({}, zeros(Q), zeros([2, 5, 2, 7]))],
    ['INVALID_SHAPE v', over({}, zeros(Q), zeros(K), zeros([2, 4, 2, 6]))],
    ['INVALID_SHAPE v', over({}, zeros(Q), zeros(K), zeros([2, 5, 1, 6]))],
    ['INVALID_SHAPE v', over({}, zeros(Q), zeros(K), zeros([2, 5, 2, 0]))],
    ['INVALID_SHAPE k', over({}, zeros(Q), zeros([2, 5, 0, 8]))],
    ['INVALID_SHAPE q', over({}, zeros([2, 3, 0, 8]))],
    ['INVALID_SHAPE q', over({}, zeros([2, 3, 4, 0]))],
    ['HEADS_NOT_DIVISIBLE q', over({}, zeros([2, 3, 3, 8]))],
    ['HEADS_NOT_DIVISIBLE q', over({}, zeros([2, 3, 1, 8]))],
    ['INVALID_DTYPE q', over({}, zeros(Q, 'i8'))],
    ['INVALID_DTYPE k', over({}, zeros(Q), zeros(K, 'f16'))],
    ['INVALID_DTYPE k', over({}, zeros(Q, 'bf16'))],
    ['INVALID_DTYPE v', over({}, zeros(Q), zeros(K), zeros(V, 'f16'))],
    ['INVALID_ARGUMENT options.causal', over({ causal: 1 })],
    ['OUT_OF_RANGE options.window', over({ window: 0 })],
    ['OUT_OF_RANGE options.window', over({ window: -3 })],
    ['INVALID_ARGUMENT options.window', over({ window: 1.5 })],
    ['NON_FINITE options.window', over({ window: NaN })],
    ['OUT_OF_RANGE options.sinkTokens', over({ sinkTokens: -1 })],
    ['INVALID_ARGUMENT options.sinkTokens', over({ sinkTokens: '1' })],
    ['NON_FINITE options.scale', over({ scale: NaN })],
    ['NON_FINITE options.scale', over({ scale: Infinity })],
    ['NON_FINITE options.scale', over({ scale: 1e300 })],
    ['INVALID_ARGUMENT options.scale', over({ scale: null })],
    ['OUT_OF_RANGE options.softcap', over({ softcap: -1 })],
    ['NON_FINITE options.softcap', over({ softcap: Infinity })],
    ['INVALID_ARGUMENT options.returnLse', over({ returnLse: 'yes' })],
    ['INVALID_ARGUMENT options.mask', over({ mask: [[1]] })],
    ['INVALID_DTYPE options.mask', over({ mask: zeros([1, 1, 3, 5]) })],
    ['INVALID_RANK options.mask', over({ mask: zeros([3, 5], 'u8') })],
    ['INVALID_SHAPE options.mask', over({ mask: zeros([1, 1, 3, 4], 'u8') })],
    ['INVALID_SHAPE options.mask', over({ mask: zeros([1, 1, 1, 5], 'u8') })],
    ['INVALID_SHAPE options.mask', over({ mask: zeros([3, 1, 3, 5], 'u8') })],
    ['INVALID_DTYPE options.bias', over({ bias: zeros([1, 1, 3, 5], 'f16') })],
    ['INVALID_SHAPE options.bias', over({ bias: zeros([1, 2, 3, 5]) })],
    ['INVALID_RANK options.alibiSlopes', over({ alibiSlopes: zeros([1, 4]) })],
    ['INVALID_SHAPE options.alibiSlopes', over({ alibiSlopes: zeros([2]) })],
    ['INVALID_DTYPE options.sinkLogits', over({ sinkLogits: zeros([4], 'i32') })],
    ['INVALID_SHAPE options.sinkLogits', over({ sinkLogits: zeros([5]) })],
    ['INVALID_ARGUMENT options.dropout', over({ dropout: 0.5 })],
    ['INVALID_ARGUMENT options.dropout.probability', over({ dropout: { seed: 1 } })],
    ['OUT_OF_RANGE options.dropout.probability', over({ dropout: { probability: 1, seed: 1 } })],
    ['OUT_OF_RANGE options.dropout.probability', over({ dropout: { probability: -1, seed: 1 } })],
    ['INVALID_ARGUMENT options.dropout.seed', over({ dropout: { probability: 0.5 } })],
    ['OUT_OF_RANGE options.dropout.seed', over({ dropout: { probability: 0, seed: 2 ** 32 } })],
    ['INVALID_ARGUMENT options.out', over({ out: new Float32Array(144) })],
    ['INVALID_RANK options.out', over({ out: zeros([6, 4, 6]) })],
    ['INVALID_SHAPE options.out', over({ out: zeros([2, 3, 4, 8]) })],
    ['INVALID_DTYPE options.out', over({ out: zeros(OUT, 'bf16') })],
    ['INVALID_DTYPE options.out', over({ out: zeros(OUT, 'i32') })],
    [
      'INVALID_DTYPE options.out',
      over({ out: zeros(OUT, 'f16') }, zeros(Q, 'bf16'), zeros(K, 'bf16'), zeros(V, 'bf16')),
    ],
    ['OUT_OF_RANGE q', over({}, zeros([2, 0, 4, 2 ** 21]))],
    ['OUT_OF_RANGE v', over({}, zeros(Q), zeros([2, 0, 2, 8]), zeros([2, 0, 2, 2 ** 21]))],
  ])('refuses with %s (%#)', (expected, run) => {
    expect(errorOf(run)).toBe(expected);
  });

  test.each(['q', 'k', 'v', 'mask', 'bias', 'alibiSlopes', 'sinkLogits', 'out'])(
    'refuses a disposed or detached %s',
    (name) => {
      const given: Record<string, Tensor> = {
        q: zeros(Q),
        k: zeros(K),
        v: zeros(V),
        mask: zeros([1, 1, 3, 5], 'u8'),
        bias: zeros([2, 4, 3, 5]),
        alibiSlopes: zeros([4]),
        sinkLogits: zeros([4]),
        out: zeros(OUT),
      };
      const run = ({ q, k, v, ...options } = given) => call(q, k, v, options);
      run();
      const argument = name.length === 1 ? name : `options.${name}`;
      const bad = given[name];
      const { data, shape, dtype } = bad;
      const view = Tensor.view(data, shape, dtype);
      structuredClone(data.buffer, { transfer: [data.buffer as ArrayBuffer] });
      expect(errorOf(() => run({ ...given, [name]: view }))).toBe(`BUFFER_DETACHED ${argument}`);
      bad.dispose();
      expect(errorOf(() => run())).toBe(`DISPOSED ${argument}`);
    },
  );

  test('refuses an out that shares a byte with any input, and takes one that does not', () => {
    const memory = new Float32Array(2000);
    const at = (offset: number, shape: number[]) =>
      Tensor.view(memory.subarray(offset, offset + shape.reduce((a, b) => a * b, 1)), shape);
    const out = at(1000, OUT);
    const outSize = 144;
    const inputs: [string, (offset: number) => () => Tensor, number][] = [
      ['q', (o) => over({ out }, at(o, Q)), 192],
      ['k', (o) => over({ out }, zeros(Q), at(o, K)), 160],
      ['v', (o) => over({ out }, zeros(Q), zeros(K), at(o, V)), 120],
      ['options.bias', (o) => over({ out, bias: at(o, [1, 1, 3, 5]) }), 15],
      ['options.alibiSlopes', (o) => over({ out, alibiSlopes: at(o, [4]) }), 4],
      ['options.sinkLogits', (o) => over({ out, sinkLogits: at(o, [4]) }), 4],
    ];
    for (const [name, run, size] of inputs) {
      expect(run(1000 - size)().size).toBe(outSize);
      expect(run(1000 + outSize)().size).toBe(outSize);
      for (const offset of [1000 - size + 1, 1000, 1000 + outSize - 1]) {
        expect(errorOf(run(offset))).toBe('OVERLAP options.out');
        expect(run(offset)).toThrow(`apart from ${name}`);
      }
    }
  });

  test('writes nothing before everything is checked', () => {
    const out = Tensor.from(new Array<number>(144).fill(7), OUT);
    const bad: Loose[] = [{ window: 0 }, { sinkLogits: zeros([5]) }, { dropout: {} }];
    for (const options of bad) expect(over({ ...options, out })).toThrow();
    expect([...out.data].every((x) => x === 7)).toBe(true);
  });

  test('reads each option once: a getter cannot change what was checked', () => {
    let reads = 0;
    const bias = zeros([1, 1, 3, 5]);
    const options = {
      get bias() {
        return reads++ === 0 ? bias : zeros([1, 1, 1, 1]);
      },
      get scale() {
        // Another call in the middle of this one.
        attention(Tensor.zeros(Q), Tensor.zeros(K), Tensor.zeros(V));
        return 1;
      },
    };
    expect(over(options)().shape).toEqual(OUT);
    expect(reads).toBe(1);
  });
});

describe('over a cache', () => {
  function filled(tokens: number, options: { window?: number; sinkTokens?: number } = {}) {
    const cache = new KvCache({ layers: 1, kvHeads: 2, headDim: 8, capacity: 20, ...options });
    const seq = cache.sequence();
    for (let t = 0; t < tokens; t++)
      seq.append(0, Tensor.zeros([1, 2, 8]), Tensor.zeros([1, 2, 8]));
    return seq.layer(0);
  }
  const rows = (tokens: number) => Tensor.zeros([1, tokens, 4, 8]);

  test.each([
    ['INVALID_SHAPE q', zeros([2, 1, 4, 8]), {}],
    ['INVALID_SHAPE q', zeros([1, 1, 4, 7]), {}],
    ['INVALID_SHAPE q', zeros([1, 1, 0, 8]), {}],
    ['INVALID_RANK q', zeros([1, 4, 8]), {}],
    ['INVALID_DTYPE q', zeros([1, 1, 4, 8], 'u8'), {}],
    ['HEADS_NOT_DIVISIBLE q', zeros([1, 1, 3, 8]), {}],
    ['INVALID_ARGUMENT options', rows(1), rows(1)],
    ['INVALID_ARGUMENT options.window', rows(1), { window: 13 }],
    ['INVALID_ARGUMENT options.window', rows(1), { window: Infinity }],
    ['INVALID_ARGUMENT options.sinkTokens', rows(1), { sinkTokens: 3 }],
    ['INVALID_SHAPE options.mask', rows(1), { mask: zeros([1, 1, 1, 20], 'u8') }],
    ['INVALID_DTYPE options.out', rows(1), { out: zeros([1, 1, 4, 8], 'f16') }],
  ])('refuses with %s (%#)', (expected, q, options) => {
    const layer = filled(30, { window: 12, sinkTokens: 2 });
    expect(errorOf(() => call(q, layer, options))).toBe(expected);
  });

  test('a row may see only what is held', () => {
    // keep = 18: positions 0, 1 and 12..29 are held. A row at position p sees from p - 11 on.
    const layer = filled(30, { window: 12, sinkTokens: 2 });
    expect(layer.start).toBe(12);
    expect(attention(rows(7), layer).shape[1]).toBe(7);
    expect(errorOf(() => attention(rows(8), layer))).toBe('POSITION_EVICTED q');
    expect(errorOf(() => attention(rows(40), layer))).toBe('POSITION_EVICTED q');
    // A narrower window reaches back less, and so fits more rows.
    expect(attention(rows(16), layer, { window: 3, sinkTokens: 0 }).shape[1]).toBe(16);
    expect(errorOf(() => attention(rows(17), layer, { window: 3 }))).toBe('POSITION_EVICTED q');
    expect(attention(rows(0), layer).size).toBe(0);
  });

  test('without a window any number of sink tokens is a narrowing', () => {
    const options: AttentionOptions<FloatDType> = { window: 2, sinkTokens: 5 };
    expect(attention(rows(1), filled(20), options).shape).toEqual([1, 1, 4, 8]);
  });

  test('more rows than tokens, no rows and no tokens are defined', () => {
    const { out, lse } = attention(rows(3), filled(1), { returnLse: true });
    expect([...out.data].every((x) => x === 0)).toBe(true);
    expect([...lse.data].slice(0, 8)).toEqual(new Array(8).fill(-Infinity));
    expect([...lse.data].slice(8)).toEqual([0, 0, 0, 0]);
    expect([...attention(rows(1), filled(0), { returnLse: true }).lse.data]).toEqual(
      new Array(4).fill(-Infinity),
    );
  });
});

describe('no tokens at all', () => {
  test.each([
    ['queries', [2, 0, 4, 8], K, V],
    ['batch', [0, 3, 4, 8], [0, 5, 2, 8], [0, 5, 2, 6]],
  ])('no %s: an empty result', (_, q, k, v) => {
    const { out, lse } = attention(Tensor.zeros(q), Tensor.zeros(k), Tensor.zeros(v), {
      returnLse: true,
    });
    expect([out.size, lse.size]).toEqual([0, 0]);
    expect(out.shape).toEqual([q[0], q[1], 4, 6]);
  });

  test('no keys: zeros and -Infinity, sink logits or not', () => {
    const q = Tensor.zeros(Q);
    const out = Tensor.from(new Array<number>(144).fill(7), OUT);
    const sinkLogits = Tensor.zeros([4]);
    const k = Tensor.zeros([2, 0, 2, 8]);
    const v = Tensor.zeros([2, 0, 2, 6]);
    const result = attention(q, k, v, { out, sinkLogits, returnLse: true });
    expect(result.out).toBe(out);
    expect([...out.data].every((x) => x === 0)).toBe(true);
    expect([...result.lse.data].every((x) => x === -Infinity)).toBe(true);
  });
});
