/**
 * y = x W^T + b: x [..., inFeatures] f32, W [outFeatures, inFeatures] in its checkpoint's dtype, blocks of GGUF included,
 * packed once for the backend; sums are f32.
 */
import { getBackend } from '../backend';
import type { Backend, LinearPart, PackedWeights } from '../backend/contract';
import type { Precision } from '../core/precision';
import { DISPOSED } from '../core/storage';
import { disposeSymbol, Tensor } from '../core/tensor';
import { stateError } from '../core/validate';
import { checkMatrix, checkRoom, checkWeights, inputRows, widen } from './inputs';
import type { MatrixWeights, Weights } from './inputs';
import { hasPacker, packMatrix } from './packing';

export class Linear {
  readonly inFeatures: number;
  readonly outFeatures: number;
  private readonly backend: Backend = getBackend();
  private readonly bias: Float32Array | null;
  private packed: PackedWeights | null;

  /**
   * Copies weight [outFeatures, inFeatures] (f32, f16, bf16; q8_0, q4_0, q4_1) into the backend's order, and bias
   * [outFeatures].
   * @throws GqaError INVALID_ARGUMENT, INVALID_DTYPE, INVALID_RANK, INVALID_SHAPE or OUT_OF_MEMORY
   */
  constructor(weight: Weights, bias?: Weights | null);
  constructor(weight: MatrixWeights, bias?: Weights | null);
  constructor(weight: MatrixWeights, bias: Weights | null = null) {
    if (!hasPacker(weight)) checkMatrix('weight', weight);
    [this.outFeatures, this.inFeatures] = weight.shape;
    if (bias) checkWeights('bias', bias, [this.outFeatures]);
    this.bias = bias && widen(bias).slice();
    this.packed = packMatrix(this.backend, weight);
  }

  /** Bytes of packed weights and bias. */
  get bytes(): number {
    return (this.packed?.bytes ?? 0) + (this.bias?.byteLength ?? 0);
  }

  /**
   * Rows of plain arrays: x [tokens, inFeatures] into out [tokens, outFeatures], allocating nothing.
   * @throws GqaError BUFFER_TOO_SMALL or DISPOSED
   */
  apply(x: Float32Array, out: Float32Array, tokens: number, precision: Precision = 'exact'): void {
    const weights = this.usableWeights();
    checkRoom('x', x.length, tokens * this.inFeatures);
    checkRoom('out', out.length, tokens * this.outFeatures);
    this.backend.linear({ x, weights, bias: this.bias, out, tokens, precision });
  }

  /** @internal This layer as a part of a fused call. @throws GqaError DISPOSED */
  part(out: Float32Array): LinearPart {
    return { weights: this.usableWeights(), bias: this.bias, out };
  }

  /**
   * Rows ids[0 .. count) of the weights, each below outFeatures, as f32 into out [count, inFeatures].
   * @throws GqaError BUFFER_TOO_SMALL or DISPOSED
   */
  gather(ids: Int32Array, out: Float32Array, count: number): void {
    const weights = this.usableWeights();
    checkRoom('ids', ids.length, count);
    checkRoom('out', out.length, count * this.inFeatures);
    this.backend.gather({ weights, ids, out, count });
  }

  /**
   * x [..., inFeatures] f32, f16 or bf16 -> a new f32 tensor [..., outFeatures].
   * @throws GqaError INVALID_RANK, INVALID_SHAPE, INVALID_DTYPE or DISPOSED
   */
  forward(x: Tensor): Tensor<'f32'> {
    const rows = inputRows('x', x, this.inFeatures);
    const tokens = rows.length / this.inFeatures;
    const out = new Float32Array(tokens * this.outFeatures);
    this.apply(rows, out, tokens);
    return Tensor.view(out, [...x.shape.slice(0, -1), this.outFeatures]);
  }

  private usableWeights(): PackedWeights {
    if (this.packed === null) throw stateError(DISPOSED, 'layer', 'linear layer');
    return this.packed;
  }

  /** Frees the packed weights; the layer is of no use afterwards. */
  dispose(): void {
    this.packed?.dispose();
    this.packed = null;
  }

  [disposeSymbol](): void {
    this.dispose();
  }
}
