/**
 * The mergeable softmax state of a row: (max, sum, out) stands for sum = sum_j exp(s_j - max) and
 * out = sum_j exp(s_j - max) v_j over some set of keys, in f64. Disjoint sets merge exactly:
 *   m = max(m1, m2), sum = sum1 exp(m1 - m) + sum2 exp(m2 - m), out likewise.
 * A finished part (out, lse) is the state (lse, 1, out), so mergeAttention is the same few lines.
 */
import type { FloatData, FloatDType } from '../../core/dtype';
import type { MergeArgs } from '../contract';
import { narrow, widen } from './rows';
import type { Rows } from './panel';
import { roundUpToLanes } from './panel';

export class RowStates {
  readonly max: Float64Array;
  readonly sum: Float64Array;
  /** [rows, width rounded up to a panel], not normalised. */
  readonly out: Rows;
  /** What statistics need beside these; kept up only where they are asked for. */
  readonly spread: Float64Array;
  readonly sink: Float64Array;
  readonly recent: Float64Array;
  readonly visible: Float64Array;
  private readonly rounded: Float32Array;

  constructor(
    rows: number,
    readonly width: number,
  ) {
    const stride = roundUpToLanes(width);
    this.max = new Float64Array(rows);
    this.sum = new Float64Array(rows);
    this.spread = new Float64Array(rows);
    this.sink = new Float64Array(rows);
    this.recent = new Float64Array(rows);
    this.visible = new Float64Array(rows);
    this.out = { data: new Float64Array(rows * stride), offset: 0, stride };
    this.rounded = new Float32Array(width);
  }

  /** The state of no keys, for the first `rows` rows. */
  clear(rows: number): void {
    this.max.fill(-Infinity, 0, rows);
    this.sum.fill(0, 0, rows);
    this.spread.fill(0, 0, rows);
    this.sink.fill(0, 0, rows);
    this.recent.fill(0, 0, rows);
    this.visible.fill(0, 0, rows);
    this.out.data.fill(0, 0, rows * this.out.stride);
  }

  /** Expresses the state relative to max(its own, `candidate`); returns that maximum. A NaN candidate changes nothing. */
  raise(row: number, candidate: number): number {
    const before = this.max[row];
    if (!(candidate > before)) return before;
    this.max[row] = candidate;
    // exp(-Infinity) = 0 where the state was empty; its sums are zeros.
    const factor = Math.exp(before - candidate);
    // sum w (s - max): s - max grows by before - candidate; what is empty stays 0.
    const moved = before === -Infinity ? 0 : (before - candidate) * this.sum[row];
    this.spread[row] = factor * (this.spread[row] + moved);
    this.sink[row] *= factor;
    this.recent[row] *= factor;
    this.sum[row] *= factor;
    const { data, stride } = this.out;
    const end = (row + 1) * stride;
    for (let i = row * stride; i < end; i++) data[i] *= factor;
    return candidate;
  }

  /** Log-sum-exp of the row, natural; -Infinity where it has no keys. */
  lse(row: number): number {
    return this.sum[row] === 0 ? -Infinity : this.max[row] + Math.log(this.sum[row]);
  }

  /** Writes out / sum, zeros where the row has no keys, rounded to dtype, at target[to]. */
  write(row: number, target: FloatData, dtype: FloatDType, to: number): void {
    const { data, stride } = this.out;
    const sum = this.sum[row];
    if (sum === 0) {
      target.fill(0, to, to + this.width);
      return;
    }
    for (let d = 0; d < this.width; d++) this.rounded[d] = data[row * stride + d] / sum;
    narrow(this.rounded, target, dtype, to, 1, this.width);
  }
}

export function merge(args: MergeArgs): void {
  const { parts, dtype, out, lse, rows, valueDim } = args;
  const state = new RowStates(1, valueDim);
  const values = new Float32Array(valueDim);
  for (let row = 0; row < rows; row++) {
    state.clear(1);
    for (const part of parts) {
      const partLse = part.lse[row];
      if (partLse === -Infinity) continue;
      const max = state.raise(0, partLse);
      // Empty so far and NaN: any finite maximum lets the NaN through.
      const weight = Math.exp(partLse - max);
      state.sum[0] += weight;
      widen(part.out, dtype, row * valueDim, values, 0, valueDim);
      for (let d = 0; d < valueDim; d++) state.out.data[d] += weight * values[d];
    }
    lse[row] = state.lse(0);
    state.write(0, out, dtype, row * valueDim);
  }
}
