/**
 * What a KvCache must look like from outside: every token ever appended and not truncated, kept in plain arrays, with
 * attention over them by the oracle, and the rules of what is held. The judge of the ring.
 */
import { attention, Tensor, type AttentionFeatures, type KvSequence } from '../../lib';
import { attentionOracle, type OracleAttention } from '../oracle';
import { coarser } from '../tolerances';
import { compareWithOracle } from './attention-case';
import type { FloatName } from './numbers';
import { asStored, type CacheName } from './quantise';
import type { Random } from './random';
import { f32Tensor, normals, tensor } from './tensors';

export interface CacheShape {
  layers: number;
  kvHeads: number;
  headDim: number;
  valueDim?: number;
  dtype: CacheName;
  window?: number;
  sinkTokens?: number;
}

export interface RowOptions {
  causal?: boolean;
  window?: number;
  sinkTokens?: number;
  softcap?: number;
  precision?: 'exact' | 'fast';
  /** A random mask, bias, ALiBi slopes and sink logits too. */
  features?: boolean;
}

export class UnboundedSequence {
  readonly layers: LayerTokens[];

  constructor(
    readonly shape: CacheShape,
    readonly sequence: KvSequence,
    private readonly random: Random,
  ) {
    this.layers = Array.from({ length: shape.layers }, () => ({ keys: [], values: [] }));
  }

  /** Tokens that every layer has. */
  get length(): number {
    return Math.min(...this.layers.map(({ keys }) => keys.length));
  }

  /** Appends the same number of random tokens to every layer of both. */
  append(tokens: number, dtype: FloatName = this.computeDtype): void {
    for (let layer = 0; layer < this.shape.layers; layer++) this.appendLayer(layer, tokens, dtype);
  }

  appendLayer(layer: number, tokens: number, dtype: FloatName = this.computeDtype): void {
    const { k, v } = this.randomTokens(tokens, dtype);
    this.sequence.append(layer, k.tensor, v.tensor);
    const { headDim, valueDim = headDim } = this.shape;
    this.layers[layer].keys.push(...this.stored(k.values, tokens, headDim));
    this.layers[layer].values.push(...this.stored(v.values, tokens, valueDim));
  }

  /** Tries an append that must fail; the mirror takes nothing. */
  appendRefused(layer: number, tokens: number): void {
    const { k, v } = this.randomTokens(tokens, this.computeDtype);
    this.sequence.append(layer, k.tensor, v.tensor);
  }

  /** Drops the tokens from `length` on in every layer, those of an unfinished step too. */
  truncate(length: number): void {
    this.sequence.truncate(length);
    for (const { keys, values } of this.layers) keys.length = values.length = length;
  }

  /** Attends with random queries to `layer` of both and compares. */
  check(
    layer: number,
    queryTokens: number,
    group: number,
    options: RowOptions = {},
    qDtype: FloatName = this.computeDtype,
  ): void {
    const { kvHeads, headDim } = this.shape;
    const heads = kvHeads * group;
    const { keys, values } = this.layers[layer];
    const q = normals(this.random, queryTokens * heads * headDim, qDtype);
    const oracle: OracleAttention = {
      q,
      k: keys.flat(),
      v: values.flat(),
      batch: 1,
      queryTokens,
      keyTokens: keys.length,
      heads,
      kvHeads,
      headDim,
      valueDim: this.shape.valueDim ?? headDim,
      causal: options.causal ?? true,
      window: Math.min(options.window ?? Infinity, this.shape.window ?? Infinity),
      sinkTokens: options.sinkTokens ?? this.shape.sinkTokens ?? 0,
      softcap: options.softcap,
    };
    const { features, ...plain } = options;
    const result = attention(
      tensor(q, [1, queryTokens, heads, headDim], qDtype),
      this.sequence.layer(layer),
      { ...plain, ...(features ? this.addFeatures(oracle) : {}), returnLse: true },
    );
    const name = `layer ${layer}, ${queryTokens} queries at the end of ${keys.length} tokens`;
    const { dtype } = this.shape;
    const quantised = dtype === 'q8' || dtype === 'q4';
    const rounded = options.precision === 'fast' && dtype === 'bf16';
    const coarsest = quantised || rounded ? coarser(dtype, qDtype) : qDtype;
    compareWithOracle(name, result, attentionOracle(oracle), coarsest, options.precision);
  }

  /** Gives the oracle every feature, and returns the options that ask for the same. */
  private addFeatures(oracle: OracleAttention): AttentionFeatures {
    const { queryTokens, keyTokens, heads } = oracle;
    const count = heads * queryTokens * keyTokens;
    const mask = Array.from({ length: count }, () => (this.random.chance(0.7) ? 1 : 0));
    const bias = normals(this.random, queryTokens * keyTokens, 'f32');
    const alibiSlopes = normals(this.random, heads, 'f32', 0.1);
    const sinkLogits = normals(this.random, heads, 'f32');
    oracle.mask = { data: mask, batch: 1, heads };
    oracle.bias = { data: bias, batch: 1, heads: 1 };
    oracle.alibiSlopes = alibiSlopes;
    oracle.sinkLogits = sinkLogits;
    return {
      mask: Tensor.view(Uint8Array.from(mask), [1, heads, queryTokens, keyTokens]),
      bias: f32Tensor(bias, [1, 1, queryTokens, keyTokens]),
      alibiSlopes: f32Tensor(alibiSlopes, [heads]),
      sinkLogits: f32Tensor(sinkLogits, [heads]),
    };
  }

  private randomTokens(tokens: number, dtype: FloatName) {
    const { kvHeads, headDim, valueDim = headDim } = this.shape;
    const make = (dim: number) => {
      const values = normals(this.random, tokens * kvHeads * dim, dtype);
      return { values, tensor: tensor(values, [tokens, kvHeads, dim], dtype) };
    };
    return { k: make(headDim), v: make(valueDim) };
  }

  /** What tokens and queries come in where a test does not say: the cache's dtype, or f32 for a quantised one. */
  private get computeDtype(): FloatName {
    const { dtype } = this.shape;
    return dtype === 'q8' || dtype === 'q4' ? 'f32' : dtype;
  }

  /** One array a token, as the cache's dtype holds its heads' rows. */
  private stored(values: number[], tokens: number, dim: number): number[][] {
    const { kvHeads, dtype } = this.shape;
    const row = (n: number): number[] => asStored(values.slice(n * dim, (n + 1) * dim), dtype);
    return Array.from({ length: tokens }, (_, t) =>
      Array.from({ length: kvHeads }, (_, head) => row(t * kvHeads + head)).flat(),
    );
  }
}

interface LayerTokens {
  /** One array a token: [kvHeads * headDim] and [kvHeads * valueDim]. */
  keys: number[][];
  values: number[][];
}
