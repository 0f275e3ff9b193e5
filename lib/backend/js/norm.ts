/** Norms of rows, sums in f64. */
import type { FusedNorm, LayerNormArgs, RmsNormArgs } from '../contract';

/** out = x / sqrt(mean(x^2) + eps) * weight, row by row. */
export function rmsNorm(args: RmsNormArgs): void {
  const { x, weight, out, tokens, dim, eps } = args;
  for (let t = 0; t < tokens; t++) {
    const first = t * dim;
    let squares = 0;
    for (let d = 0; d < dim; d++) squares += x[first + d] * x[first + d];
    const factor = 1 / Math.sqrt(squares / dim + eps);
    for (let d = 0; d < dim; d++) out[first + d] = x[first + d] * factor * weight[d];
  }
}

/** out = (x - mean) / sqrt(variance + eps) * weight + bias, row by row. */
export function layerNorm(args: LayerNormArgs): void {
  const { x, weight, bias, out, tokens, dim, eps } = args;
  for (let t = 0; t < tokens; t++) {
    const first = t * dim;
    let sum = 0;
    for (let d = 0; d < dim; d++) sum += x[first + d];
    const mean = sum / dim;
    let squares = 0;
    for (let d = 0; d < dim; d++) squares += (x[first + d] - mean) * (x[first + d] - mean);
    const factor = 1 / Math.sqrt(squares / dim + eps);
    for (let d = 0; d < dim; d++) {
      const y = (x[first + d] - mean) * factor * weight[d];
      out[first + d] = bias === null ? y : y + bias[d];
    }
  }
}

/** The norm of a fused call over rows of x. */
export function normalise(
  norm: FusedNorm,
  x: Float32Array,
  out: Float32Array,
  tokens: number,
  dim: number,
): void {
  const { weight, bias, eps } = norm;
  if (norm.kind === 'layer') layerNorm({ x, weight, bias, out, tokens, dim, eps });
  else rmsNorm({ x, weight, out, tokens, dim, eps });
}
