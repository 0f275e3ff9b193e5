/** Linear layers over GGUF blocks, with rounded activations, and fused, against the oracle. */
import { getBackend } from '../../lib/backend';
import type { FusedLinearArgs, LinearPart } from '../../lib/backend/contract';
import type { BlockDType, WeightDType } from '../../lib/core/dtype';
import { linearOracle, rmsNormOracle, swigluOracle } from '../oracle';
import { randomBlocks } from '../support/blocks';
import { expectClose } from '../support/compare';
import { Random } from '../support/random';
import { axis } from '../support/samples';
import { normals, toBits } from '../support/tensors';
import { FUSED_LINEAR, LINEAR, LINEAR_FAST } from '../tolerances';

const BLOCKS = ['q8_0', 'q4_0', 'q4_1'] as const;
const DTYPES = ['f32', 'f16', 'bf16', ...BLOCKS] as const;
const backend = getBackend();
const f32 = (x: ArrayLike<number>) => Float32Array.from(x);

interface Matrix {
  rows: number;
  columns: number;
  values: ArrayLike<number>;
  data: Float32Array | Uint16Array | Uint8Array;
  dtype: WeightDType;
}

function randomMatrix(random: Random, rows: number, columns: number, dtype: WeightDType): Matrix {
  if (dtype !== 'f32' && dtype !== 'f16' && dtype !== 'bf16') {
    const { bytes, values } = randomBlocks(random, (rows * columns) / 32, dtype);
    return { rows, columns, values, data: bytes, dtype };
  }
  const values = normals(random, rows * columns, dtype);
  return { rows, columns, values, data: toBits(values, dtype), dtype };
}

const pack = ({ data, dtype, rows, columns }: Matrix) =>
  backend.packWeights({ weight: data, dtype, rows, columns });

/** Errors relative to the sum of |x w|, at least 1. */
function expectProduct(
  what: string,
  out: Float32Array,
  x: number[],
  m: Matrix,
  bias: number[] | null,
  tolerance: number,
): void {
  const expected = linearOracle(x, m.values, bias, m.rows, m.columns);
  const size = linearOracle(
    x.map(Math.abs),
    Array.from(m.values, Math.abs),
    bias?.map(Math.abs) ?? null,
    m.rows,
    m.columns,
  );
  const relative = (y: ArrayLike<number>) =>
    Array.from(y, (e, i) => (e - expected[i]) / Math.max(1, size[i]));
  expectClose(what, relative(out), relative(expected), tolerance);
}

describe.each(BLOCKS)('weights in blocks of %s', (dtype: BlockDType) => {
  test.each(
    axis([
      [1, 32],
      [15, 64],
      [16, 96],
      [33, 160],
      [50, 32],
      [64, 576],
      [130, 320],
    ]),
  )('%i outputs of %i inputs', (rows, columns) => {
    const random = new Random(rows * 1000 + columns);
    const matrix = randomMatrix(random, rows, columns, dtype);
    const weights = pack(matrix);
    for (const tokens of axis([0, 1, 2, 5, 6, 7, 13, 31, 97, 200], 4)) {
      const x = normals(random, tokens * columns, 'f32');
      const bias = tokens % 2 === 0 ? null : normals(random, rows, 'f32');
      for (const precision of ['exact', 'fast'] as const) {
        const whole = new Float32Array(tokens * rows + 16).fill(77);
        const out = whole.subarray(0, tokens * rows);
        backend.linear({ x: f32(x), weights, bias: bias && f32(bias), out, tokens, precision });
        const tolerance = precision === 'exact' ? LINEAR : LINEAR_FAST;
        expectProduct(`${tokens} tokens, ${precision}`, out, x, matrix, bias, tolerance);
        expect(whole.subarray(tokens * rows).every((y) => y === 77)).toBe(true);
      }
    }
    weights.dispose();
  });
});

describe.each(DTYPES)('%s', (dtype) => {
  const [rows, columns, tokens] = [80, 96, 37];
  const random = new Random(5);
  const matrix = randomMatrix(random, rows, columns, dtype);
  const weights = pack(matrix);
  const x = f32(normals(random, tokens * columns, 'f32'));
  const run = (from: Float32Array, precision: 'exact' | 'fast') => {
    const out = new Float32Array((from.length / columns) * rows);
    backend.linear({
      x: from,
      weights,
      bias: null,
      out,
      tokens: from.length / columns,
      precision,
    });
    return out;
  };

  test('gathered rows are the values', () => {
    const ids = Int32Array.of(79, 0, 17, 17);
    const out = new Float32Array(ids.length * columns + 3).fill(77);
    backend.gather({ weights, ids, out, count: ids.length });
    ids.forEach((id, i) => {
      // A zero has no sign here.
      const row = (from: ArrayLike<number>, n: number) =>
        Array.from(from)
          .slice(n * columns, (n + 1) * columns)
          .map((y) => y + 0);
      expect(row(out, i)).toEqual(row(matrix.values, id));
    });
    expect(Array.from(out.subarray(ids.length * columns))).toEqual([77, 77, 77]);
  });

  describe.each(['exact', 'fast'] as const)('%s', (precision) => {
    test('the same bits for every thread count', () => {
      const whole = run(x, precision);
      const { threads } = backend.info;
      backend.limitThreads(1);
      expect(run(x, precision)).toEqual(whole);
      backend.limitThreads(threads);
      const tolerance = precision === 'exact' ? LINEAR : LINEAR_FAST;
      expectProduct('products', whole, Array.from(x), matrix, null, tolerance);
    });

    test('NaN and Infinity in one token stay in it', () => {
      for (const value of [NaN, Infinity]) {
        const poisoned = x.slice(0, 9 * columns);
        poisoned[4 * columns + 7] = value;
        const out = run(poisoned, precision);
        const bad = Array.from(out.keys()).filter((i) => !Number.isFinite(out[i]));
        // A weight of zero times Infinity is NaN: not finite either.
        expect(bad).toEqual(Array.from({ length: rows }, (_, n) => 4 * rows + n));
      }
    });

    test('zeros and tiny values', () => {
      const tiny = new Float32Array(3 * columns).fill(1e-42);
      tiny.fill(0, columns, 2 * columns);
      expect(run(tiny, precision).every((y) => Math.abs(y) < 1e-36)).toBe(true);
    });
  });
});

describe.each([
  ['f32', 'f32', 'f32'],
  ['bf16', 'f16', 'bf16'],
  ['q4_1', 'q4_1', 'q8_0'],
  ['q8_0', 'f32', 'bf16'],
] as const)('fused over %s, %s, %s', (...dtypes) => {
  const columns = 64;
  const random = new Random(11);
  const matrices = dtypes.map((dtype, i) => randomMatrix(random, [96, 33, 70][i], columns, dtype));
  const twin = randomMatrix(random, 96, columns, dtypes[1]);
  const packed = [...matrices, twin].map(pack);
  const gamma = normals(random, columns, 'f32');
  const bias = normals(random, 96, 'f32');

  const part = (i: number, tokens: number): LinearPart => ({
    weights: packed[i],
    bias: i === 0 ? f32(bias) : null,
    out: new Float32Array(tokens * packed[i].rows).fill(0.5),
  });
  const args = (
    tokens: number,
    x: number[],
    rest: Pick<FusedLinearArgs, 'parts' | 'combine'>,
    precision: 'exact' | 'fast',
  ): FusedLinearArgs => ({
    x: f32(x),
    tokens,
    norm: { kind: 'rms', weight: f32(gamma), bias: null, eps: 1e-5 },
    precision,
    ...rest,
  });

  test.each(axis([1, 2, 7, 40]))('%i tokens', (tokens) => {
    const x = normals(random, tokens * columns, 'f32', 3);
    const n = rmsNormOracle(x, gamma, Math.fround(1e-5));
    for (const precision of ['exact', 'fast'] as const) {
      const tolerance = precision === 'exact' ? FUSED_LINEAR : LINEAR_FAST;
      const parts = [0, 1, 2].map((i) => part(i, tokens));
      backend.fusedLinear(args(tokens, x, { parts, combine: 'write' }, precision));
      parts.forEach((p, i) => {
        expectProduct(`part ${i}`, p.out, n, matrices[i], i === 0 ? bias : null, tolerance);
      });

      const sum = part(1, tokens);
      backend.fusedLinear(args(tokens, x, { parts: [sum], combine: 'add' }, precision));
      const added = sum.out.map((y) => y - 0.5);
      expectProduct('add', added, n, matrices[1], null, tolerance);

      const [gate, up] = [part(0, tokens), part(3, tokens)];
      backend.fusedLinear(args(tokens, x, { parts: [gate, up], combine: 'gated' }, precision));
      const product = (m: Matrix, b: number[] | null) =>
        linearOracle(n, m.values, b, m.rows, columns);
      const expected = swigluOracle(product(matrices[0], bias), product(twin, null));
      expectClose('swiglu', gate.out, expected, 4 * tolerance);
    }
  });

  test('without a norm x is taken as it is', () => {
    const x = normals(random, 3 * columns, 'f32');
    const only = part(0, 3);
    const whole = args(3, x, { parts: [only], combine: 'write' }, 'exact');
    backend.fusedLinear({ ...whole, norm: null });
    expectProduct('part', only.out, x, matrices[0], bias, LINEAR);
  });
});
