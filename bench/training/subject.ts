/** What the parts of this benchmark have in common. */
import { randomData } from '../../lib/cli/bench/data';

/** Checked against float64, then timed. */
export interface Subject {
  name: string;
  /** Of one run, two a multiply-add. */
  flop: number;
  run: () => void;
  /** Of what the last run left: largest |x - x*| / largest |x*|, over rows spread over its results. */
  error: () => number;
}

export function f32(count: number, seed: number): Float32Array {
  return randomData('f32', count, seed) as Float32Array;
}

/** The error of actual[from ...], in f32, against one row of float64. */
export function rowError(actual: Float32Array, from: number, expected: Float64Array): number {
  const largest = expected.reduce((m, x) => Math.max(m, Math.abs(x)), 0);
  return expected.reduce((m, x, i) => Math.max(m, Math.abs(actual[from + i] - x) / largest), 0);
}
