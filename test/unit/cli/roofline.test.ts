/** The arithmetic of percentages, on numbers worked out by hand. */
import type { WeightDType } from '../../../lib/core/dtype';
import { slowShare } from '../../../lib/cli/bench/limits';
import {
  decodeWork,
  linearWork,
  prefillWork,
  rate,
  type Peak,
} from '../../../lib/cli/bench/roofline';
import { quantile, spread } from '../../../lib/toolkit/statistics';

const LLAMA = { heads: 32, kvHeads: 8, headDim: 128 };

test('decode work: K and V once, 4 Hq D FLOP a key', () => {
  const flop = 67_108_864;
  expect(decodeWork(LLAMA, 4096, 'f32')).toEqual({ bytes: 33_554_432, flop, peak: 'fma' });
  expect(decodeWork(LLAMA, 4096, 'bf16')).toEqual({ bytes: 16_777_216, flop, peak: 'fma' });
  expect(decodeWork({ heads: 71, kvHeads: 1, headDim: 64 }, 4096, 'f32')).toEqual({
    bytes: 2_097_152,
    flop: 74_448_896,
    peak: 'fma',
  });
});

test('quantised storage: 8.5 and 4.5 bits a value, four times the FMA peak', () => {
  const flop = 67_108_864;
  expect(decodeWork(LLAMA, 4096, 'q8')).toEqual({ bytes: 8_912_896, flop, peak: 'quantised' });
  expect(decodeWork(LLAMA, 4096, 'q4')).toEqual({ bytes: 4_718_592, flop, peak: 'quantised' });
});

test('prefill work: visible pairs only', () => {
  // One head of one dim: 4 FLOP a pair, 1 + 2 + 3 pairs.
  expect(prefillWork({ heads: 1, kvHeads: 1, headDim: 1 }, 3, 'f32').flop).toBe(24);
  expect(prefillWork(LLAMA, 2048, 'f16').flop).toBe(4 * 32 * 128 * 2_098_176);
});

test('linear work: weights once, two FLOP a multiply-add', () => {
  const shape = { rows: 10, columns: 32 };
  const work = (dtype: WeightDType, precision: 'exact' | 'fast') =>
    linearWork({ shape, tokens: 3, dtype, precision });
  expect(work('f16', 'exact')).toEqual({ bytes: 640, flop: 1920, peak: 'fma' });
  expect(work('q8_0', 'exact')).toEqual({ bytes: 340, flop: 1920, peak: 'fma' });
  expect(work('q8_0', 'fast')).toEqual({ bytes: 340, flop: 1920, peak: 'int8' });
  expect(work('bf16', 'fast').peak).toBe('bf16');
  expect(work('f16', 'fast').peak).toBe('fma');
  expect(work('q4_0', 'fast').bytes).toBe(180);
  expect(work('q4_1', 'fast').bytes).toBe(200);
});

test('the higher limit decides, and the share is of it', () => {
  const limits = { read: 40e9, fma: 100e9, bf16: 0, int8: 0, tiles: 0 };
  // 0.1 ms of reading, 0.05 ms of arithmetic, done in 0.125 ms.
  expect(rate({ bytes: 4e6, flop: 5e6, peak: 'fma' }, limits, 125e-6)).toEqual({
    roofline: expect.closeTo(0.8, 10),
    bound: 'read',
    peakGigaflops: 100,
    gigabytes: expect.closeTo(32, 10),
    gigaflops: expect.closeTo(40, 10),
  });
  // 0.1 ms of reading, 0.2 ms of arithmetic, done in 0.4 ms.
  const computed = rate({ bytes: 4e6, flop: 20e6, peak: 'fma' }, limits, 400e-6);
  expect(computed.roofline).toBeCloseTo(0.5, 10);
  expect(computed.bound).toBe('arithmetic');
  // Four times the peak: reading decides again.
  const dots = rate({ bytes: 4e6, flop: 20e6, peak: 'quantised' }, limits, 400e-6);
  expect([dots.roofline, dots.bound]).toEqual([expect.closeTo(0.25, 10), 'read']);
  // No bytes counted: arithmetic alone.
  expect(rate(prefillWork(LLAMA, 2048, 'f32'), limits, 1).bound).toBe('arithmetic');
});

test('quantiles', () => {
  expect(quantile([1, 2, 3, 4], 0.5)).toBe(2.5);
  expect(quantile([7], 0.9)).toBe(7);
  const values = Array.from({ length: 11 }, (_, i) => 10 - i);
  expect(spread(values)).toEqual({ median: 5, p10: 1, p90: 9, samples: 11 });
  expect(values[0]).toBe(10);
});

test('the peak is that of what multiplies', () => {
  const limits = { read: 1e15, fma: 100e9, bf16: 200e9, int8: 380e9, tiles: 0 };
  const peakOf = (peak: Peak, machine = limits) =>
    rate({ bytes: 0, flop: 1e9, peak }, machine, 1).peakGigaflops;
  expect(peakOf('quantised')).toBe(400);
  expect(peakOf('int8')).toBe(380);
  expect(peakOf('bf16')).toBe(200);
  expect(peakOf('bf16', { ...limits, tiles: 2000e9 })).toBe(2000);
  // Machines without such instructions multiply as f32.
  const plain = { ...limits, bf16: 0, int8: 0 };
  expect([peakOf('bf16', plain), peakOf('int8', plain)]).toEqual([100, 100]);
});

test('the slow state of AMX shows as passes far below the best', () => {
  expect(slowShare([2200, 2100, 550, 560], 2200)).toBe(0.5);
  expect(slowShare([1900, 2200], 2200)).toBe(0);
  // Slow all along this case, fast around another.
  expect(slowShare([550, 555], 2200)).toBe(1);
  expect(slowShare([], 2200)).toBeNull();
});
