/** What a layer's backward pass needs beside products and RoPE: transposition, and RMSNorm and SwiGLU backward; sums in f64. */
import type { RmsNormBackwardArgs, SwigluBackwardArgs, TransposeArgs } from '../contract-training';

// A name of the module's own: in a vm context (jest) finding a global costs more than the exponential.
const { exp, min: smaller, sqrt } = Math;

/** A square of so many rows and columns of f32 reads and writes whole cache lines. */
const TILE = 32;

/** out[c, r] = x[r, c], square by square. */
export function transpose({ x, out, rows, columns }: TransposeArgs): void {
  for (let r0 = 0; r0 < rows; r0 += TILE) {
    const r1 = smaller(rows, r0 + TILE);
    for (let c0 = 0; c0 < columns; c0 += TILE) {
      const c1 = smaller(columns, c0 + TILE);
      for (let c = c0; c < c1; c++) {
        for (let r = r0; r < r1; r++) out[c * rows + r] = x[r * columns + c];
      }
    }
  }
}

/** One token's sums go to gradWeight as doubles until all tokens are in. */
let weightSums = new Float64Array(0);

export function rmsNormBackward(args: RmsNormBackwardArgs): void {
  const { x, weight, gradOut, gradX, gradWeight, tokens, dim, eps } = args;
  if (weightSums.length < dim) weightSums = new Float64Array(dim);
  weightSums.fill(0, 0, dim);
  for (let t = 0; t < tokens; t++) {
    const first = t * dim;
    let squares = 0;
    let products = 0;
    for (let d = 0; d < dim; d++) {
      const value = x[first + d];
      squares += value * value;
      products += gradOut[first + d] * value * weight[d];
    }
    const r = 1 / sqrt(squares / dim + eps);
    const mean = (products * r) / dim;
    for (let d = 0; d < dim; d++) {
      const n = x[first + d] * r;
      gradX[first + d] += r * (gradOut[first + d] * weight[d] - n * mean);
      weightSums[d] += gradOut[first + d] * n;
    }
  }
  if (gradWeight === null) return;
  for (let d = 0; d < dim; d++) gradWeight[d] += weightSums[d];
}

export function swigluBackward(args: SwigluBackwardArgs): void {
  const { gate, up, gradOut, gradGate, gradUp, count } = args;
  for (let i = 0; i < count; i++) {
    const g = gate[i];
    const s = 1 / (1 + exp(-g));
    const toGate = gradOut[i] * up[i] * s * (1 + g * (1 - s));
    gradUp[i] = gradOut[i] * g * s;
    gradGate[i] = toGate;
  }
}
