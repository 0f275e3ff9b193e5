/** The backend's other operations against the oracle: linear, RMSNorm, RoPE, SwiGLU, add. */
import { getBackend } from '../../lib/backend';
import { linearOracle, rmsNormOracle, ropeOracle, swigluOracle } from '../oracle';
import { expectClose } from '../support/compare';
import { Random } from '../support/random';
import { axis } from '../support/samples';
import { normals, toBits } from '../support/tensors';
import { LINEAR, LINEAR_FAST, RMS_NORM, ROPE, SWIGLU } from '../tolerances';

const DTYPES = ['f32', 'f16', 'bf16'] as const;
const backend = getBackend();
const f32 = (x: ArrayLike<number>) => Float32Array.from(x);

describe.each(DTYPES)('linear, weights of %s', (dtype) => {
  const SHAPES: [number, number][] = [
    [1, 1],
    [1, 64],
    [3, 5],
    [15, 17],
    [16, 16],
    [17, 31],
    [33, 129],
    [64, 100],
    [129, 64],
    [40, 1023],
  ];
  test.each(axis(SHAPES))('%i outputs of %i inputs', (rows, columns) => {
    const random = new Random(rows * 1000 + columns);
    const weight = normals(random, rows * columns, dtype);
    const weights = backend.packWeights({ weight: toBits(weight, dtype), dtype, rows, columns });
    expect([weights.rows, weights.columns]).toEqual([rows, columns]);
    for (const tokens of [0, 1, 2, 3, 4, 5, 7, 8, 12, 13, 16, 31, 33, 70]) {
      for (const withBias of [false, true]) {
        const x = normals(random, tokens * columns, 'f32');
        const bias = withBias ? normals(random, rows, 'f32') : null;
        const magnitude = linearOracle(
          x.map(Math.abs),
          weight.map(Math.abs),
          bias?.map(Math.abs) ?? null,
          rows,
          columns,
        );
        const expected = linearOracle(x, weight, bias, rows, columns);
        const relative = (y: ArrayLike<number>) =>
          Array.from(y, (e, i) => (e - expected[i]) / Math.max(1, magnitude[i]));
        // Of these weights only bf16 are multiplied otherwise.
        for (const precision of dtype === 'bf16'
          ? (['exact', 'fast'] as const)
          : (['exact'] as const)) {
          // Slack behind the output: nothing may be written there.
          const whole = new Float32Array(tokens * rows + 16).fill(77);
          const out = whole.subarray(0, tokens * rows);
          backend.linear({ x: f32(x), weights, bias: bias && f32(bias), out, tokens, precision });
          const tolerance = precision === 'exact' ? LINEAR : LINEAR_FAST;
          expectClose(
            `${tokens} tokens, ${precision}`,
            relative(out),
            relative(expected),
            tolerance,
          );
          expect(whole.subarray(tokens * rows).every((y) => y === 77)).toBe(true);
        }
      }
    }
    weights.dispose();
  });

  test('the same bits for each token alone as for all at once, and for every thread count', () => {
    const [rows, columns, tokens] = [96, 80, 37];
    const random = new Random(3);
    const weights = backend.packWeights({
      weight: toBits(normals(random, rows * columns, dtype), dtype),
      dtype,
      rows,
      columns,
    });
    const x = f32(normals(random, tokens * columns, 'f32'));
    const run = (count: number, from: Float32Array) => {
      const out = new Float32Array(count * rows);
      backend.linear({ x: from, weights, bias: null, out, tokens: count });
      return out;
    };
    const whole = run(tokens, x);
    const threads = backend.info.threads;
    backend.limitThreads(1);
    expect(run(tokens, x)).toEqual(whole);
    backend.limitThreads(threads);
    for (let t = 0; t < tokens; t++) {
      const one = run(1, x.slice(t * columns, (t + 1) * columns));
      expectClose(`token ${t}`, one, whole.subarray(t * rows, (t + 1) * rows), LINEAR);
    }
  });

  test('NaN in one token stays in it', () => {
    const [rows, columns, tokens] = [20, 24, 9];
    const random = new Random(4);
    const weights = backend.packWeights({
      weight: toBits(normals(random, rows * columns, dtype), dtype),
      dtype,
      rows,
      columns,
    });
    const x = f32(normals(random, tokens * columns, 'f32'));
    x[4 * columns + 7] = NaN;
    const out = new Float32Array(tokens * rows);
    backend.linear({ x, weights, bias: null, out, tokens });
    const poisoned = Array.from(out.keys()).filter((i) => Number.isNaN(out[i]));
    expect(poisoned).toEqual(Array.from({ length: rows }, (_, n) => 4 * rows + n));
  });
});

describe('rmsNorm', () => {
  test.each(axis([1, 2, 3, 7, 8, 15, 16, 17, 33, 64, 100, 192, 577, 1024]))('dim %i', (dim) => {
    const random = new Random(dim);
    for (const [tokens, scale] of [
      [0, 1],
      [1, 1],
      [5, 100],
      [9, 1e-4],
    ]) {
      const x = normals(random, tokens * dim, 'f32', scale);
      const weight = normals(random, dim, 'f32');
      const out = new Float32Array(tokens * dim + 8).fill(77);
      backend.rmsNorm({
        x: f32(x),
        weight: f32(weight),
        out: out.subarray(0, tokens * dim),
        tokens,
        dim,
        eps: 1e-5,
      });
      expectClose(
        `${tokens} tokens`,
        out.subarray(0, tokens * dim),
        rmsNormOracle(x, weight, Math.fround(1e-5)),
        RMS_NORM,
      );
      expect(out.subarray(tokens * dim).every((y) => y === 77)).toBe(true);
      const inPlace = f32(x);
      backend.rmsNorm({ x: inPlace, weight: f32(weight), out: inPlace, tokens, dim, eps: 1e-5 });
      expect(inPlace).toEqual(out.slice(0, tokens * dim));
    }
  });

  test('a row of zeros stays zero', () => {
    const x = new Float32Array(40);
    backend.rmsNorm({
      x,
      weight: new Float32Array(20).fill(1),
      out: x,
      tokens: 2,
      dim: 20,
      eps: 1e-6,
    });
    expect(Array.from(x)).toEqual(new Array(40).fill(0));
  });
});

describe.each([true, false])('rope, interleaved %p', (interleaved) => {
  test.each([
    [2, 2],
    [8, 8],
    [16, 16],
    [32, 16],
    [34, 34],
    [64, 64],
    [96, 96],
    [100, 50],
    [128, 128],
    [128, 2],
  ])('head dim %i, first %i turned', (headDim, rotaryDim) => {
    const random = new Random(headDim + rotaryDim);
    for (const [tokens, heads] of [
      [0, 3],
      [1, 1],
      [1, 9],
      [13, 3],
    ]) {
      const x = normals(random, tokens * heads * headDim, 'f32');
      const angles = Array.from({ length: (tokens * rotaryDim) / 2 }, () => 6 * random.uniform());
      const [cos, sin] = [f32(angles.map(Math.cos)), f32(angles.map(Math.sin))];
      const whole = new Float32Array(x.length + 16).fill(77);
      const turned = whole.subarray(0, x.length);
      turned.set(x);
      backend.rope({ x: turned, cos, sin, tokens, heads, headDim, rotaryDim, interleaved });
      const expected = ropeOracle(x, cos, sin, { tokens, heads, headDim, rotaryDim, interleaved });
      expectClose(`${tokens} tokens`, turned, expected, ROPE);
      expect(whole.subarray(x.length).every((y) => y === 77)).toBe(true);
    }
  });
});

test.each([0, 1, 3, 7, 8, 15, 16, 17, 31, 100, 1000])('swiglu and add of %i elements', (count) => {
  const random = new Random(count);
  const gate = normals(random, count, 'f32', 4);
  const up = normals(random, count, 'f32');
  const whole = new Float32Array(count + 16).fill(77);
  const out = whole.subarray(0, count);
  const swiglu = { activation: 'silu' as const, second: f32(up), count };
  backend.activate({ ...swiglu, x: f32(gate), out });
  expectClose('swiglu', out, swigluOracle(gate, up), SWIGLU);
  const inPlace = f32(gate);
  backend.activate({ ...swiglu, x: inPlace, out: inPlace });
  expect(inPlace).toEqual(out);
  backend.add(out, f32(up), count);
  expectClose(
    'add',
    out,
    swigluOracle(gate, up).map((y, i) => y + up[i]),
    SWIGLU,
  );
  expect(whole.subarray(count).every((y) => y === 77)).toBe(true);
});

test('swiglu at the ends of the range', () => {
  const gate = [-1e4, -200, -100, -88, -87, -20, 0, 20, 88, 100, 1e4, Infinity, NaN];
  const out = new Float32Array(gate.length);
  backend.activate({
    activation: 'silu',
    x: f32(gate),
    second: new Float32Array(gate.length).fill(2),
    out,
    count: gate.length,
  });
  // silu(x) is x / (1 + exp(-x)): tiny at the left, x at the right.
  const expected = swigluOracle(
    gate,
    gate.map(() => 2),
  );
  expectClose('swiglu', out, expected, SWIGLU);
});
