/**
 * What a KvCache must look like from outside: every token ever appended and not truncated, kept in plain arrays, with
 * attention over them by the oracle. The judge of the ring.
 */
import { attention, Tensor, type KvSequence } from '../../lib';
import { attentionOracle, type OracleAttention } from '../oracle';
import { compareWithOracle } from './attention-case';
import { roundToDtype, type FloatName } from './numbers';
import type { Random } from './random';
import { normals, tensor } from './tensors';

export interface CacheShape {
  layers: number;
  kvHeads: number;
  headDim: number;
  dtype: FloatName;
  window?: number;
  sinkTokens?: number;
}

export class UnboundedSequence {
  /** Of each layer, one array a token: [kvHeads * headDim]. */
  private readonly keys: number[][][];
  private readonly values: number[][][];

  constructor(
    readonly shape: CacheShape,
    readonly sequence: KvSequence,
    private readonly random: Random,
  ) {
    this.keys = Array.from({ length: shape.layers }, () => []);
    this.values = Array.from({ length: shape.layers }, () => []);
  }

  get length(): number {
    return this.keys[this.shape.layers - 1].length;
  }

  /** Appends the same number of random tokens to every layer of both. */
  append(tokens: number, dtype: FloatName = this.shape.dtype): void {
    for (let layer = 0; layer < this.shape.layers; layer++) this.appendLayer(layer, tokens, dtype);
  }

  appendLayer(layer: number, tokens: number, dtype: FloatName = this.shape.dtype): void {
    const { kvHeads, headDim } = this.shape;
    const width = kvHeads * headDim;
    const k = normals(this.random, tokens * width, dtype);
    const v = normals(this.random, tokens * width, dtype);
    const shape = [tokens, kvHeads, headDim];
    this.sequence.append(layer, tensor(k, shape, dtype), tensor(v, shape, dtype));
    for (let t = 0; t < tokens; t++) {
      const stored = (x: number[]) =>
        x.slice(t * width, (t + 1) * width).map((y) => roundToDtype(y, this.shape.dtype));
      this.keys[layer].push(stored(k));
      this.values[layer].push(stored(v));
    }
  }

  truncate(length: number): void {
    this.sequence.truncate(length);
    for (const layer of [...this.keys, ...this.values]) layer.length = length;
  }

  /** Attends with random queries to `layer` of both and compares. */
  check(
    layer: number,
    queryTokens: number,
    group: number,
    options: { causal?: boolean; window?: number; sinkTokens?: number; softcap?: number } = {},
    qDtype: FloatName = this.shape.dtype,
  ): void {
    const { kvHeads, headDim } = this.shape;
    const heads = kvHeads * group;
    const keyTokens = this.keys[layer].length;
    const q = normals(this.random, queryTokens * heads * headDim, qDtype);
    const oracle: OracleAttention = {
      q,
      k: this.keys[layer].flat(),
      v: this.values[layer].flat(),
      batch: 1,
      queryTokens,
      keyTokens,
      heads,
      kvHeads,
      headDim,
      valueDim: headDim,
      causal: options.causal ?? true,
      window: Math.min(options.window ?? Infinity, this.shape.window ?? Infinity),
      sinkTokens: Math.min(options.sinkTokens ?? Infinity, this.shape.sinkTokens ?? 0),
      softcap: options.softcap,
    };
    const result = attention(
      tensor(q, [1, queryTokens, heads, headDim], qDtype) as Tensor<'f32'>,
      this.sequence.layer(layer),
      { ...options, returnLse: true },
    ) as { out: Tensor; lse: Tensor };
    const name = `layer ${layer}, ${queryTokens} queries at the end of ${keyTokens} tokens`;
    compareWithOracle(name, result, attentionOracle(oracle), qDtype);
  }
}
