/** Root-mean-square norm, x / sqrt(mean(x^2) + eps) * weight over the last dimension, f32. */
import { getBackend } from '../backend';
import type { Backend, FusedNorm } from '../backend/contract';
import { Tensor } from '../core/tensor';
import { checkRoom, checkWeights, inputRows, requirePositive, widen } from './inputs';
import type { Weights } from './inputs';

export class RmsNorm {
  readonly dim: number;
  private readonly backend: Backend = getBackend();
  private readonly weight: Float32Array;

  /**
   * Copies weight [dim] (f32, f16 or bf16).
   * @throws GqaError INVALID_ARGUMENT, INVALID_DTYPE, INVALID_RANK, OUT_OF_RANGE or NON_FINITE
   */
  constructor(
    weight: Weights,
    readonly eps: number,
  ) {
    checkWeights('weight', weight, [undefined]);
    requirePositive(eps, 'eps');
    this.dim = weight.shape[0];
    this.weight = widen(weight).slice();
  }

  get bytes(): number {
    return this.weight.byteLength;
  }

  /** @internal This norm as the beginning of a fused call. */
  get prologue(): FusedNorm {
    return { kind: 'rms', weight: this.weight, bias: null, eps: this.eps };
  }

  /**
   * Rows of plain arrays: x [tokens, dim] into out [tokens, dim], which may be x.
   * @throws GqaError BUFFER_TOO_SMALL
   */
  apply(x: Float32Array, out: Float32Array, tokens: number): void {
    const { weight, dim, eps } = this;
    checkRoom('x', x.length, tokens * dim);
    checkRoom('out', out.length, tokens * dim);
    this.backend.rmsNorm({ x, weight, out, tokens, dim, eps });
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
