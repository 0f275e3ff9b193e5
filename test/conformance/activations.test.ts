/** Norms and activation functions, alone and fused with linear layers, against their definitions. */
import { getBackend } from '../../lib/backend';
import type { FusedLinearArgs, FusedNorm } from '../../lib/backend/contract';
import { linearOracle, rmsNormOracle, swigluOracle } from '../oracle';
import { activationOracle, gatedOracle, layerNormOracle, normalDistribution } from '../oracle-mlp';
import { expectClose, expectSameBits } from '../support/compare';
import { Random } from '../support/random';
import { axis } from '../support/samples';
import { normals, toBits } from '../support/tensors';
import { ACTIVATION, FUSED_LINEAR, LAYER_NORM } from '../tolerances';

const FUNCTIONS = ['silu', 'gelu', 'gelu_tanh', 'relu'] as const;
const GATES = [...FUNCTIONS, 'swiglu_oai'] as const;
const backend = getBackend();
const f32 = (x: ArrayLike<number>) => Float32Array.from(x);

describe('layerNorm', () => {
  test.each(axis([1, 2, 3, 7, 8, 15, 16, 17, 33, 64, 100, 192, 577, 1024]))('dim %i', (dim) => {
    const random = new Random(dim);
    // A mean that dwarfs what tells the elements apart must not swallow them.
    for (const [tokens, scale, mean] of [
      [0, 1, 0],
      [1, 1, 0],
      [5, 100, -30],
      [9, 1e-2, 1],
    ]) {
      const x = normals(random, tokens * dim, 'f32', scale).map((e) => Math.fround(e + mean));
      const weight = normals(random, dim, 'f32');
      for (const bias of [null, normals(random, dim, 'f32')]) {
        const out = new Float32Array(tokens * dim + 16).fill(77);
        const args = {
          x: f32(x),
          weight: f32(weight),
          bias: bias && f32(bias),
          out: out.subarray(0, tokens * dim),
          tokens,
          dim,
          eps: 1e-5,
        };
        backend.layerNorm(args);
        const expected = layerNormOracle(x, weight, bias, Math.fround(1e-5));
        expectClose(`${tokens} tokens`, args.out, expected, LAYER_NORM);
        expect(out.subarray(tokens * dim).every((y) => y === 77)).toBe(true);
        const inPlace = f32(x);
        backend.layerNorm({ ...args, x: inPlace, out: inPlace });
        expectSameBits('in place', inPlace, args.out.slice());
      }
    }
  });

  test('equal elements become the bias', () => {
    const x = new Float32Array(40).fill(3);
    const [weight, bias] = [new Float32Array(20).fill(2), new Float32Array(20).fill(0.25)];
    backend.layerNorm({ x, weight, bias, out: x, tokens: 2, dim: 20, eps: 1e-6 });
    expectClose('rows', x, new Array<number>(40).fill(0.25), LAYER_NORM);
  });
});

test('the oracle of the normal distribution, by tabled values', () => {
  expect(normalDistribution(0)).toBe(0.5);
  expect(normalDistribution(1)).toBeCloseTo(0.8413447460685429, 14);
  expect(normalDistribution(-3.5)).toBeCloseTo(2.3262907903552504e-4, 16);
  expect(normalDistribution(-6) / 9.865876450376946e-10).toBeCloseTo(1, 10);
});

/** From the far left to the far right, dense where the functions bend. */
const RANGE = f32(Array.from({ length: 4001 }, (_, i) => (i - 2000) ** 3 / 2e8)).map((x, i) =>
  i % 2 === 0 ? x : x / 8,
);

describe.each(FUNCTIONS)('%s', (activation) => {
  test('within a few roundings of its definition, over the whole range', () => {
    const out = new Float32Array(RANGE.length);
    backend.activate({ activation, x: RANGE, second: null, out, count: RANGE.length });
    const expected = activationOracle(activation, RANGE);
    // Relative to each element, as far as f32 has bits for 1e-3 of x beside x: the tails on the left are that small.
    const relative = (y: ArrayLike<number>) =>
      Array.from(y, (e, i) => e / Math.max(Math.abs(expected[i]), 1e-3 * Math.abs(RANGE[i]), 1e-9));
    expectClose(activation, relative(out), relative(expected), ACTIVATION);
  });

  test('NaN stays NaN, Infinity Infinity, and the far left is zero', () => {
    const x = Float32Array.of(NaN, Infinity, 0, 1e4, -1e4);
    const out = new Float32Array(5);
    backend.activate({ activation, x, second: null, out, count: 5 });
    expect(out[0]).toBeNaN();
    expect(Array.from(out.subarray(1), Math.abs)).toEqual([Infinity, 0, 1e4, expect.any(Number)]);
    expect(Math.abs(out[4])).toBeLessThan(1e-30);
  });
});

describe.each(GATES)('gates of %s', (activation) => {
  test.each([0, 1, 7, 16, 17, 100, 1000])('%i elements', (count) => {
    const random = new Random(count);
    const gate = normals(random, count, 'f32', 4);
    const up = normals(random, count, 'f32', 5);
    const whole = new Float32Array(count + 16).fill(77);
    const out = whole.subarray(0, count);
    backend.activate({ activation, x: f32(gate), second: f32(up), out, count });
    expectClose('gates', out, gatedOracle(activation, gate, up), ACTIVATION);
    const inPlace = f32(gate);
    backend.activate({ activation, x: inPlace, second: f32(up), out: inPlace, count });
    expectSameBits('in place', inPlace, out.slice());
    expect(whole.subarray(count).every((y) => y === 77)).toBe(true);
  });
});

test('silu gates are SwiGLU', () => {
  const [gate, up] = [normals(new Random(1), 50, 'f32'), normals(new Random(2), 50, 'f32')];
  expect(gatedOracle('silu', gate, up)).toEqual(swigluOracle(gate, up));
});

describe('fused', () => {
  const [rows, columns] = [37, 50];
  const random = new Random(21);
  const matrices = [0, 1, 2].map(() => normals(random, rows * columns, 'f32'));
  const packed = matrices.map((m) =>
    backend.packWeights({ weight: toBits(m, 'f32'), dtype: 'f32', rows, columns }),
  );
  const bias = normals(random, rows, 'f32');
  const gamma = normals(random, columns, 'f32');
  const beta = normals(random, columns, 'f32');
  const NORMS: { name: string; norm: FusedNorm | null; of: (x: number[]) => number[] }[] = [
    { name: 'no norm', norm: null, of: (x) => x },
    {
      name: 'RMSNorm',
      norm: { kind: 'rms', weight: f32(gamma), bias: null, eps: 1e-5 },
      of: (x) => rmsNormOracle(x, gamma, Math.fround(1e-5)),
    },
    {
      name: 'LayerNorm',
      norm: { kind: 'layer', weight: f32(gamma), bias: f32(beta), eps: 1e-5 },
      of: (x) => layerNormOracle(x, gamma, beta, Math.fround(1e-5)),
    },
    {
      name: 'LayerNorm without bias',
      norm: { kind: 'layer', weight: f32(gamma), bias: null, eps: 1e-5 },
      of: (x) => layerNormOracle(x, gamma, null, Math.fround(1e-5)),
    },
  ];

  describe.each(NORMS)('$name', ({ norm, of }) => {
    test.each(axis([1, 3, 8, 40]))('%i tokens', (tokens) => {
      const x = normals(random, tokens * columns, 'f32', 2);
      const n = of(x);
      const products = matrices.map((m, i) =>
        linearOracle(n, m, i === 0 ? bias : null, rows, columns),
      );
      const run = (
        combine: FusedLinearArgs['combine'],
        count: number,
        activation?: FusedLinearArgs['activation'],
      ): Float32Array[] => {
        const parts = packed.slice(0, count).map((weights, i) => ({
          weights,
          bias: i === 0 ? f32(bias) : null,
          out: new Float32Array(tokens * rows).fill(0.5),
        }));
        const shared = { x: f32(x), tokens, norm, parts, combine, precision: 'exact' as const };
        backend.fusedLinear({ ...shared, activation });
        return parts.map((part) => part.out);
      };
      const tolerance = 2 * columns * FUSED_LINEAR;
      run('write', 3).forEach((out, i) => expectClose('write', out, products[i], tolerance));
      const sums = products[0].map((y) => y + 0.5);
      expectClose('add', run('add', 1)[0], sums, tolerance);
      expectSameBits('the default', run('gated', 2)[0], run('gated', 2, 'silu')[0]);
      for (const activation of GATES) {
        const expected = gatedOracle(activation, products[0], products[1]);
        expectClose(activation, run('gated', 2, activation)[0], expected, tolerance);
      }
      for (const activation of FUNCTIONS)
        run('activated', 3, activation).forEach((out, i) => {
          expectClose(activation, out, activationOracle(activation, products[i]), tolerance);
        });
    });
  });
});
