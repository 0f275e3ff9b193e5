/** y[m,n] = sum_k x[m,k] W[n,k] + bias[n] over packed weights, f32 in and out, sums in f64. */
import type { LinearArgs } from '../contract';
import type { JsPackedWeights } from './pack';
import type { Panel, Rows } from './panel';
import { LANES, multiplyPanel } from './panel';

/** Tokens that share one reading of the weights: their x, as doubles, stays in L2. */
const TILE_TOKENS = 32;

let inputs = new Float64Array(0);
const sums = new Float64Array(TILE_TOKENS * LANES);

export function linear(args: LinearArgs): void {
  const { x, out, bias, tokens } = args;
  const weights = args.weights as JsPackedWeights;
  const { rows, columns } = weights;
  const tileTokens = Math.min(tokens, TILE_TOKENS);
  if (inputs.length < tileTokens * columns) inputs = new Float64Array(tileTokens * columns);
  const a: Rows = { data: inputs, offset: 0, stride: columns };
  const panel: Panel = { data: weights.data, offset: 0, stride: LANES };
  const c: Rows = { data: sums, offset: 0, stride: LANES };
  for (let token = 0; token < tokens; token += TILE_TOKENS) {
    const count = Math.min(TILE_TOKENS, tokens - token);
    copyInputs(x, token * columns, count * columns);
    for (let n = 0; n < rows; n += LANES) {
      panel.offset = n * columns;
      sums.fill(0, 0, count * LANES);
      multiplyPanel(a, panel, c, count, columns);
      writeSums(out, token * rows + n, rows, count, Math.min(LANES, rows - n), bias, n);
    }
  }
}

function copyInputs(x: Float32Array, from: number, count: number): void {
  for (let i = 0; i < count; i++) inputs[i] = x[from + i];
}

/** out[m * stride + i] = sums[m, i] + bias[firstFeature + i], from element `to` on. */
function writeSums(
  out: Float32Array,
  to: number,
  stride: number,
  tokens: number,
  features: number,
  bias: Float32Array | null,
  firstFeature: number,
): void {
  for (let m = 0; m < tokens; m++) {
    for (let i = 0; i < features; i++) {
      const sum = sums[m * LANES + i];
      out[to + m * stride + i] = bias === null ? sum : sum + bias[firstFeature + i];
    }
  }
}
