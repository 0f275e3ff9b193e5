/** Everything of the table but attention, against the oracle or against its definition. */
import * as fc from 'fast-check';
import { multiplyPanel } from '../../../lib/backend/js/panel';
import { linearOracle, mergeOracle, rmsNormOracle, ropeOracle, swigluOracle } from '../../oracle';
import { expectClose, toNumbers } from '../../support/compare';
import { decodeSmall, encodeSmall } from '../../support/numbers';
import { Random } from '../../support/random';
import { normals, toBits } from '../../support/tensors';
import { LINEAR, MERGE, RMS_NORM, ROPE, SWIGLU } from '../../tolerances';
import { js } from './support';

const dtype = fc.constantFrom('f32' as const, 'f16' as const, 'bf16' as const);

test('the panel product, for every count of rows and any strides', () => {
  const random = new Random(1);
  for (let rows = 1; rows <= 9; rows++) {
    const length = random.int(0, 20);
    const a = { data: Float64Array.from(random.normals(400)), offset: 3, stride: 30 };
    const b = { data: Float32Array.from(random.normals(400)), offset: 5, stride: 11 };
    const before = Float64Array.from(random.normals(400));
    const c = { data: before.slice(), offset: 7, stride: 13 };
    multiplyPanel(a, b, c, rows, length);
    const expected = before.slice();
    for (let r = 0; r < rows; r++) {
      for (let n = 0; n < 8; n++) {
        for (let l = 0; l < length; l++) {
          expected[7 + r * 13 + n] += a.data[3 + r * 30 + l] * b.data[5 + l * 11 + n];
        }
      }
    }
    expectClose(`${rows} rows`, c.data, expected, 1e-14);
  }
});

test('linear layers of any size, bias or none', () => {
  const shape = fc.record({
    seed: fc.nat(1e6),
    dtype,
    rows: fc.integer({ min: 1, max: 40 }),
    columns: fc.integer({ min: 1, max: 70 }),
    tokens: fc.integer({ min: 1, max: 70 }),
    bias: fc.boolean(),
  });
  fc.assert(
    fc.property(shape, ({ seed, dtype, rows, columns, tokens, bias }) => {
      const random = new Random(seed);
      const w = normals(random, rows * columns, dtype);
      const x = Float32Array.from(random.normals(tokens * columns));
      const b = bias ? Float32Array.from(random.normals(rows)) : null;
      const weight = toBits(w, dtype);
      const weights = js.packWeights({ weight, dtype, rows, columns });
      weight.fill(0); // a packed weight is a copy
      const out = new Float32Array(tokens * rows).fill(NaN);
      js.linear({ x, weights, bias: b, out, tokens });
      expectClose('y', out, linearOracle(x, w, b, rows, columns), LINEAR);
      expect(weights.bytes).toBeGreaterThanOrEqual(rows * columns * 4);
      weights.dispose();
    }),
    { numRuns: 60 },
  );
});

test('merging parts, empty ones included', () => {
  const shape = fc.record({
    seed: fc.nat(1e6),
    dtype,
    rows: fc.integer({ min: 1, max: 6 }),
    valueDim: fc.integer({ min: 1, max: 20 }),
    parts: fc.integer({ min: 1, max: 5 }),
  });
  fc.assert(
    fc.property(shape, ({ seed, dtype, rows, valueDim, parts: count }) => {
      const random = new Random(seed);
      const drawn = Array.from({ length: count }, () => ({
        out: normals(random, rows * valueDim, dtype),
        lse: Float32Array.from({ length: rows }, () =>
          random.chance(0.3) ? -Infinity : 9 * random.normal(),
        ),
      }));
      const parts = drawn.map(({ out, lse }) => ({ out: toBits(out, dtype), lse }));
      const out = toBits(new Array<number>(rows * valueDim).fill(NaN), dtype);
      const lse = new Float32Array(rows).fill(NaN);
      js.merge({ parts, dtype, out, lse, rows, valueDim });
      const expected = mergeOracle(drawn, rows, valueDim);
      expectClose('out', toNumbers(out, dtype), expected.out, MERGE[dtype]);
      expectClose('lse', lse, expected.lse, MERGE.f32);
    }),
  );
});

test('RMSNorm, in place too', () => {
  const random = new Random(2);
  const x = Float32Array.from(random.normals(5 * 37, 3));
  const weight = Float32Array.from(random.normals(37));
  const expected = rmsNormOracle(x, weight, 1e-5);
  const out = new Float32Array(x.length);
  js.rmsNorm({ x, weight, out, tokens: 5, dim: 37, eps: 1e-5 });
  expectClose('out', out, expected, RMS_NORM);
  js.rmsNorm({ x, weight, out: x, tokens: 5, dim: 37, eps: 1e-5 });
  expect(x).toEqual(out);
});

test.each([false, true])('RoPE over a part of the head, interleaved %p', (interleaved) => {
  const random = new Random(3);
  const shape = { tokens: 4, heads: 3, headDim: 14, rotaryDim: 10, interleaved };
  const angles = random.normals(4 * 5, 9);
  const [cos, sin] = [Math.cos, Math.sin].map((f) => Float32Array.from(angles, f));
  const x = Float32Array.from(random.normals(4 * 3 * 14));
  const expected = ropeOracle(x, cos, sin, shape);
  js.rope({ x, cos, sin, ...shape });
  expectClose('x', x, expected, ROPE);
});

test('SwiGLU and addition, in place, up to the count', () => {
  const gate = Float32Array.from([-100, -2, -0, 0, 1, 50, 7]);
  const up = Float32Array.from([3, -1, 2, 2, 0.5, 2, 7]);
  const expected = swigluOracle(gate, up);
  js.activate({ activation: 'silu', x: gate, second: up, out: gate, count: 6 });
  expectClose('swiglu', gate, [...expected.slice(0, 6), 7], SWIGLU);
  js.add(up, Float32Array.from([1, 1, 1]), 2);
  expect(Array.from(up)).toEqual([4, 0, 2, 2, 0.5, 2, 7]);
});

test('conversion of every 16-bit pattern, and of f32 values between them', () => {
  const patterns = Uint16Array.from({ length: 65536 }, (_, i) => i);
  const wide = new Float32Array(65536);
  for (const small of ['f16', 'bf16'] as const) {
    js.convert({ from: patterns, fromDtype: small, to: wide, toDtype: 'f32', count: 65536 });
    expect(wide).toEqual(Float32Array.from(patterns, (bits) => decodeSmall(bits, small)));
    const between = wide
      .map((x, i) => x * (1 + (i % 5) * 2 ** -12))
      .filter((x) => !Number.isNaN(x));
    const back = new Uint16Array(between.length);
    js.convert({
      from: between,
      fromDtype: 'f32',
      to: back,
      toDtype: small,
      count: between.length,
    });
    expect(back).toEqual(Uint16Array.from(between, (x) => encodeSmall(x, small)));
  }
});

test('conversion between equal dtypes copies, between the small ones goes through f32', () => {
  const from = toBits([1, -2.5, 70000, 3], 'bf16');
  const to = new Uint16Array(4);
  js.convert({ from, fromDtype: 'bf16', to, toDtype: 'bf16', count: 3 });
  expect(Array.from(to)).toEqual([...from.subarray(0, 3), 0]);
  js.convert({ from, fromDtype: 'bf16', to, toDtype: 'f16', count: 4 });
  expect(toNumbers(to, 'f16')).toEqual([1, -2.5, Infinity, 3]);
});

test('probes run over any buffer and say what they did', () => {
  const buffer = new ArrayBuffer(40);
  for (const [offset, length] of [
    [0, 40],
    [1, 0],
    [1, 2],
    [3, 21],
  ]) {
    expect(js.probeRead(new Uint8Array(buffer, offset, length))).toBeUndefined();
  }
  expect(js.probeFma(1000)).toBe(16000);
});
