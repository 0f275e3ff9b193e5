/** Naive float64 results of a few rows, to check a case before it is timed. Knows nothing of the kernels. */
import type { FloatData, FloatDType, WeightData, WeightDType, CacheDType } from '../../core/dtype';
import type { Precision } from '../../core/precision';
import type { MatrixShape } from '../options';
import { valueAt } from './data';
import { isQuantised } from './roofline';

/**
 * What a dtype is allowed (docs/numerics.md): floats `relativeError`; quantised storage `normError`, against float64
 * over the values before they were quantised, so that a wrong result shows however coarse the storage.
 */
const TOLERANCE: Readonly<Record<CacheDType, number>> = {
  f32: 2e-6,
  f16: 2e-3,
  bf16: 1.6e-2,
  q8: 0.03,
  q4: 0.35,
};

/** f32 may be computed as sums of two bf16 each; what 'fast' rounds of other storage is no coarser than the storage. */
const FAST_F32_TOLERANCE = 2e-5;

export function toleranceOf(dtype: CacheDType, precision: Precision): number {
  return dtype === 'f32' && precision === 'fast' ? FAST_F32_TOLERANCE : TOLERANCE[dtype];
}

/** The same for linear layers: weights are held exactly; 'fast' may round activations to bf16 or to 8 bits. */
export const LINEAR_TOLERANCE: Readonly<Record<Precision, number>> = { exact: 1e-5, fast: 3e-2 };

export interface Elements {
  data: FloatData;
  dtype: FloatDType;
}

export interface Weights {
  data: WeightData;
  dtype: WeightDType;
}

/** Keys and values [tokens, kvHeads, headDim]. */
export interface KeyValues {
  k: Elements;
  v: Elements;
  kvHeads: number;
  headDim: number;
}

/**
 * out[:] = sum_j softmax_j(q . k[j] / sqrt(D)) v[j] over the first `keys` keys of one KV head;
 * q starts at element `at` of its data.
 */
export function attendRow(
  q: Elements,
  at: number,
  { k, v, kvHeads, headDim }: KeyValues,
  kvHead: number,
  keys: number,
): Float64Array {
  const offset = (key: number) => (key * kvHeads + kvHead) * headDim;
  const scores = new Float64Array(keys);
  for (let j = 0; j < keys; j++) {
    for (let d = 0; d < headDim; d++) {
      scores[j] += valueAt(q.data, q.dtype, at + d) * valueAt(k.data, k.dtype, offset(j) + d);
    }
    scores[j] /= Math.sqrt(headDim);
  }
  const largest = scores.reduce((a, b) => Math.max(a, b), -Infinity);
  const out = new Float64Array(headDim);
  let sum = 0;
  for (let j = 0; j < keys; j++) {
    const weight = Math.exp(scores[j] - largest);
    sum += weight;
    for (let d = 0; d < headDim; d++) out[d] += weight * valueAt(v.data, v.dtype, offset(j) + d);
  }
  return out.map((x) => x / sum);
}

/** One output feature of y = x W^T for row `token` of x [tokens, columns]. */
export function linearFeature(
  x: Elements,
  token: number,
  weight: Weights,
  row: number,
  { columns }: MatrixShape,
): number {
  let sum = 0;
  for (let c = 0; c < columns; c++) {
    sum +=
      valueAt(x.data, x.dtype, token * columns + c) *
      valueAt(weight.data, weight.dtype, row * columns + c);
  }
  return sum;
}

/** Largest |error| / max(1, largest |expected|); Infinity where a result is not a number. */
export function relativeError(expected: ArrayLike<number>, actual: ArrayLike<number>): number {
  let error = 0;
  let largest = 1;
  for (let i = 0; i < expected.length; i++) {
    const difference = Math.abs(expected[i] - actual[i]);
    error = Math.max(error, Number.isNaN(difference) ? Infinity : difference);
    largest = Math.max(largest, Math.abs(expected[i]));
  }
  return error / largest;
}

/** |error| / |expected|, Euclidean norms over all elements; Infinity where a result is not a number. */
export function normError(expected: ArrayLike<number>, actual: ArrayLike<number>): number {
  let errorSquares = 0;
  let squares = 0;
  for (let i = 0; i < expected.length; i++) {
    errorSquares += (expected[i] - actual[i]) ** 2;
    squares += expected[i] ** 2;
  }
  return Number.isNaN(errorSquares) ? Infinity : Math.sqrt(errorSquares / squares);
}

/** The error that TOLERANCE[dtype] bounds. */
export function storedError(
  dtype: CacheDType,
  expected: ArrayLike<number>,
  actual: ArrayLike<number>,
): number {
  return isQuantised(dtype) ? normError(expected, actual) : relativeError(expected, actual);
}
