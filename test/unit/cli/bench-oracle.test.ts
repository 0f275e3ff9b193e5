/** The benchmark's own float64 check: its reading of 16-bit floats, its formula, and that it can fail. */
import { randomData, randomWeights, valueAt } from '../../../lib/cli/bench/data';
import {
  attendRow,
  linearFeature,
  relativeError,
  storedError,
} from '../../../lib/cli/bench/oracle';

const f32 = (values: number[]) => ({ data: Float32Array.from(values), dtype: 'f32' as const });

test.each([
  ['f16', 0x3c00, 1],
  ['f16', 0xc000, -2],
  ['f16', 0x3555, 0.333251953125],
  ['f16', 0x0001, 2 ** -24],
  ['f16', 0x7c00, Infinity],
  ['bf16', 0x3f80, 1],
  ['bf16', 0xc2f7, -123.5],
  ['bf16', 0x0001, 2 ** -133],
  ['bf16', 0xff80, -Infinity],
] as const)('%s bits %i', (dtype, bits, value) => {
  expect(valueAt(Uint16Array.of(bits), dtype, 0)).toBe(value);
});

test("GGUF's blocks, value by value", () => {
  // Scale 2 (0x4000), minimum 1 (0x3c00), bytes 0, 1, ... with the low and the high half of 0x?1 apart.
  const bytes = (...head: number[]) => Uint8Array.from([...head, 0xf1, ...Array(31).fill(0x80)]);
  const values = (dtype: 'q8_0' | 'q4_0' | 'q4_1', data: Uint8Array, at: number[]) =>
    at.map((index) => valueAt(data, dtype, index));
  expect(values('q8_0', bytes(0, 0x40), [0, 1, 31])).toEqual([-30, -256, -256]);
  expect(values('q4_0', bytes(0, 0x40), [0, 16, 1, 17])).toEqual([-14, 14, -16, 0]);
  expect(values('q4_1', bytes(0, 0x40, 0, 0x3c), [0, 16, 1, 17])).toEqual([3, 31, 1, 17]);
});

test.each(['q8_0', 'q4_0', 'q4_1'] as const)('random %s blocks are of about 1', (dtype) => {
  const data = randomWeights(dtype, 3200, 5);
  const values = Array.from({ length: 3200 }, (_, i) => valueAt(data, dtype, i));
  const power = values.reduce((sum, x) => sum + x * x, 0) / values.length;
  expect(power).toBeGreaterThan(0.2);
  expect(power).toBeLessThan(10);
  expect(Math.min(...values)).toBeLessThan(0);
  expect(Math.max(...values)).toBeGreaterThan(0);
});

test.each(['f32', 'f16', 'bf16'] as const)(
  'random %s values are normal numbers of both signs',
  (dtype) => {
    const count = 4000;
    const data = randomData(dtype, count, 5);
    const values = Array.from({ length: count }, (_, i) => valueAt(data, dtype, i));
    for (const value of values) {
      expect(Math.abs(value)).toBeGreaterThanOrEqual(0.25);
      expect(Math.abs(value)).toBeLessThan(2);
    }
    const mean = values.reduce((a, b) => a + b) / count;
    expect(Math.abs(mean)).toBeLessThan(0.1);
    expect(randomData(dtype, 8, 5)).toEqual(data.slice(0, 8));
    expect(randomData(dtype, 8, 6)).not.toEqual(data.slice(0, 8));
  },
);

test('attention of one row, worked out by hand', () => {
  // Two KV heads of dim 1; the second is attended over. Scores ln 3 and 0: weights 3/4 and 1/4.
  const k = f32([9, Math.log(3), 9, 0, 9, 50]);
  const v = f32([9, 8, 9, 4, 9, 77]);
  const out = attendRow(f32([0, 1]), 1, { k, v, kvHeads: 2, headDim: 1 }, 1, 2);
  expect(out).toHaveLength(1);
  expect(out[0]).toBeCloseTo(7, 6);
});

test('a linear feature, worked out by hand', () => {
  const x = f32([0, 0, 1, 2]);
  const weight = f32([0, 0, 3, 5, 0, 0]);
  expect(linearFeature(x, 1, weight, 1, { rows: 3, columns: 2 })).toBe(13);
});

test('errors are relative to the largest value, at least 1, and NaN never passes', () => {
  expect(relativeError([0.5, 0.1], [0.5, 0.3])).toBeCloseTo(0.2, 12);
  expect(relativeError([10, 0], [10, 1])).toBeCloseTo(0.1, 12);
  expect(relativeError([1], [NaN])).toBe(Infinity);
});

test('quantised results are held to the norm of the result', () => {
  expect(storedError('q8', [0.3, 0.4], [0.3, 0.45])).toBeCloseTo(0.1, 12);
  expect(storedError('f32', [0.3, 0.4], [0.3, 0.45])).toBeCloseTo(0.05, 12);
  expect(storedError('q4', [1, 1], [1, NaN])).toBe(Infinity);
});
