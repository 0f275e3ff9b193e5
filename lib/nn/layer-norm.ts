/** Layer norm, (x - mean(x)) / sqrt(var(x) + eps) * weight + bias over the last dimension, f32; sums are float64. */
import { Tensor } from '../core/tensor';
import { checkRoom, checkWeights, inputRows, requirePositive, widen } from './inputs';
import type { Weights } from './inputs';

export class LayerNorm {
  readonly dim: number;
  private readonly weight: Float32Array;
  private readonly bias: Float32Array | null;

  /**
   * Copies weight and bias [dim] (f32, f16 or bf16).
   * @throws GqaError INVALID_ARGUMENT, INVALID_DTYPE, INVALID_RANK, INVALID_SHAPE, OUT_OF_RANGE or NON_FINITE
   */
  constructor(
    weight: Weights,
    bias: Weights | null,
    readonly eps: number,
  ) {
    checkWeights('weight', weight, [undefined]);
    requirePositive(eps, 'eps');
    this.dim = weight.shape[0];
    if (bias !== null) checkWeights('bias', bias, [this.dim]);
    this.weight = widen(weight).slice();
    this.bias = bias && widen(bias).slice();
  }

  get bytes(): number {
    return this.weight.byteLength + (this.bias?.byteLength ?? 0);
  }

  /**
   * Rows of plain arrays: x [tokens, dim] into out [tokens, dim], which may be x.
   * @throws GqaError BUFFER_TOO_SMALL
   */
  apply(x: Float32Array, out: Float32Array, tokens: number): void {
    const { dim } = this;
    checkRoom('x', x.length, tokens * dim);
    checkRoom('out', out.length, tokens * dim);
    for (let t = 0; t < tokens; t++) this.applyRow(x, out, t * dim);
  }

  private applyRow(x: Float32Array, out: Float32Array, at: number): void {
    const { dim, weight, bias } = this;
    let mean = 0;
    for (let i = 0; i < dim; i++) mean += x[at + i];
    mean /= dim;
    let variance = 0;
    for (let i = 0; i < dim; i++) variance += (x[at + i] - mean) ** 2;
    const scale = 1 / Math.sqrt(variance / dim + this.eps);
    for (let i = 0; i < dim; i++) {
      out[at + i] = (x[at + i] - mean) * scale * weight[i] + (bias === null ? 0 : bias[i]);
    }
  }

  /**
   * x [..., dim] f32, f16 or bf16 -> a new f32 tensor of the same shape.
   * @throws GqaError INVALID_RANK, INVALID_SHAPE or INVALID_DTYPE
   */
  forward(x: Tensor): Tensor<'f32'> {
    const rows = inputRows('x', x, this.dim);
    const out = new Float32Array(rows.length);
    this.apply(rows, out, rows.length / this.dim);
    return Tensor.view(out, x.shape);
  }
}
