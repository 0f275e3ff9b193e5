/**
 * Memory for intermediate results, shared by all layers of a model: named rows of up to `maxTokens` tokens, made when a
 * layer first asks for them. Which layer wrote them last is the caller's affair.
 */
import type { Precision } from '../core/precision';
import { Tensor } from '../core/tensor';
import { checkRoom } from './inputs';

interface View {
  rows: number;
  tensor: Tensor<'f32'>;
}

export class Scratch {
  private readonly buffers = new Map<string, Float32Array>();
  private readonly views = new Map<string, View>();

  constructor(
    readonly maxTokens: number,
    /** Of the calls over it: 'fast' may round what linear layers and attention multiply. */
    readonly precision: Precision = 'exact',
  ) {}

  /** f32 [maxTokens, perToken] at least, the same memory for the same name. */
  rows(name: string, perToken: number): Float32Array {
    const made = this.buffers.get(name);
    if (made !== undefined && made.length >= this.maxTokens * perToken) return made;
    const buffer = new Float32Array(this.maxTokens * perToken);
    this.buffers.set(name, buffer);
    for (const key of this.views.keys()) if (key.startsWith(`${name} `)) this.views.delete(key);
    return buffer;
  }

  /** Its first rows as a tensor [rows, heads, dim], kept until other rows of that shape are asked for. */
  heads(name: string, rows: number, heads: number, dim: number): Tensor<'f32'> {
    const data = this.rows(name, heads * dim);
    const key = `${name} ${heads} ${dim}`;
    const made = this.views.get(key);
    if (made?.rows === rows) return made.tensor;
    const tensor = Tensor.view(data.subarray(0, rows * heads * dim), [rows, heads, dim]);
    this.views.set(key, { rows, tensor });
    return tensor;
  }

  /** @throws GqaError BUFFER_TOO_SMALL where so many tokens do not fit. */
  checkTokens(tokens: number): void {
    checkRoom('scratch', this.maxTokens, tokens);
  }
}
