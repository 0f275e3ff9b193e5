/** Layer norm, (x - mean(x)) / sqrt(var(x) + eps) * weight + bias over the last dimension, f32. */
import { getBackend } from '../backend';
import type { Backend, FusedNorm } from '../backend/contract';
import { Tensor } from '../core/tensor';
import { checkRoom, checkWeights, inputRows, requirePositive, widen } from './inputs';
import type { Weights } from './inputs';

export class LayerNorm {
  readonly dim: number;
  private readonly backend: Backend = getBackend();
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

  /** @internal This norm as the beginning of a fused call. */
  get prologue(): FusedNorm {
    return { kind: 'layer', weight: this.weight, bias: this.bias, eps: this.eps };
  }

  /**
   * Rows of plain arrays: x [tokens, dim] into out [tokens, dim], which may be x.
   * @throws GqaError BUFFER_TOO_SMALL
   */
  apply(x: Float32Array, out: Float32Array, tokens: number): void {
    const { weight, bias, dim, eps } = this;
    checkRoom('x', x.length, tokens * dim);
    checkRoom('out', out.length, tokens * dim);
    this.backend.layerNorm({ x, weight, bias, out, tokens, dim, eps });
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
