/**
 * What a KvCache must look like from outside: every token ever appended and not truncated, kept in plain arrays, with
 * attention over them by the oracle, and the rules of what is held. The judge of the ring.
 */
import {
  attention,
  Tensor,
  type AttentionFeatures,
  type AttentionStats,
  type KvSequence,
} from '../../lib';
import { attentionOracle, type OracleAttention } from '../oracle';
import { coarser } from '../tolerances';
import { compareWithOracle } from './attention-case';
import type { FloatName } from './numbers';
import type { CacheName } from './quantise';
import type { Random } from './random';
import { isQuantised, type Rows, type Storage } from './stored-rows';
import { StoredTokens } from './stored-tokens';
import { compareStats } from './statistics';
import { f32Tensor, normals, tensor } from './tensors';

export interface CacheShape {
  layers: number;
  kvHeads: number;
  headDim: number;
  valueDim?: number;
  dtype: CacheName | { k: CacheName; v: CacheName };
  rotate?: boolean;
  recent?: number;
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
  /** Compares statistics too. */
  stats?: AttentionStats;
}

function storageOf(shape: CacheShape): Storage {
  const { kvHeads, headDim, valueDim = headDim, dtype, rotate } = shape;
  const { k, v } = typeof dtype === 'string' ? { k: dtype, v: dtype } : dtype;
  const rotated = { rotateKeys: rotate ?? k === 'q4', rotateValues: rotate ?? v === 'q4' };
  return { kvHeads, headDim, valueDim, keyDtype: k, valueDtype: v, ...rotated };
}

/** What such a cache's sequence holds of rows that it takes at once. */
export function storedTokens(shape: CacheShape, k: number[], v: number[]): Rows {
  const tokens = new StoredTokens(storageOf(shape), shape.recent, shape.sinkTokens);
  tokens.append({ k, v });
  return tokens.read();
}

export class UnboundedSequence {
  readonly layers: StoredTokens[];
  private readonly storage: Storage;

  constructor(
    readonly shape: CacheShape,
    readonly sequence: KvSequence,
    private readonly random: Random,
  ) {
    const { layers, recent, sinkTokens } = shape;
    this.storage = storageOf(shape);
    const tokens = () => new StoredTokens(this.storage, recent, sinkTokens);
    this.layers = Array.from({ length: layers }, tokens);
  }

  /** Tokens that every layer has. */
  get length(): number {
    return Math.min(...this.layers.map(({ length }) => length));
  }

  /** Appends the same number of random tokens to every layer of both. */
  append(tokens: number, dtype: FloatName = this.computeDtype): void {
    for (let layer = 0; layer < this.shape.layers; layer++) this.appendLayer(layer, tokens, dtype);
  }

  appendLayer(layer: number, tokens: number, dtype: FloatName = this.computeDtype): void {
    const { k, v } = this.randomTokens(tokens, dtype);
    this.sequence.append(layer, k.tensor, v.tensor);
    this.layers[layer].append({ k: k.values, v: v.values });
  }

  /** Takes note of tokens that are all zeros, which the sequence has. */
  appendedZeros(tokens: number): void {
    const { kvHeads, headDim, valueDim } = this.storage;
    const zeros = (dim: number) => new Array<number>(tokens * kvHeads * dim).fill(0);
    for (const layer of this.layers) layer.append({ k: zeros(headDim), v: zeros(valueDim) });
  }

  /** Tries an append that must fail; the mirror takes nothing. */
  appendRefused(layer: number, tokens: number): void {
    const { k, v } = this.randomTokens(tokens, this.computeDtype);
    this.sequence.append(layer, k.tensor, v.tensor);
  }

  /** Drops the tokens from `length` on in every layer, those of an unfinished step too. */
  truncate(length: number): void {
    this.sequence.truncate(length);
    for (const layer of this.layers) layer.truncate(length);
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
    const { k, v } = this.layers[layer].read();
    const keyTokens = this.layers[layer].length;
    const q = normals(this.random, queryTokens * heads * headDim, qDtype);
    const oracle: OracleAttention = {
      q,
      k,
      v,
      batch: 1,
      queryTokens,
      keyTokens,
      heads,
      kvHeads,
      headDim,
      valueDim: this.shape.valueDim ?? headDim,
      causal: options.causal ?? true,
      window: Math.min(options.window ?? Infinity, this.shape.window ?? Infinity),
      sinkTokens: options.sinkTokens ?? this.shape.sinkTokens ?? 0,
      softcap: options.softcap,
      stats: options.stats,
    };
    const { features, ...plain } = options;
    const result = attention(
      tensor(q, [1, queryTokens, heads, headDim], qDtype),
      this.sequence.layer(layer),
      { ...plain, ...(features ? this.addFeatures(oracle) : {}), returnLse: true },
    );
    const name = `layer ${layer}, ${queryTokens} queries at the end of ${keyTokens} tokens`;
    const { keyDtype, valueDtype } = this.storage;
    const dtype = coarser(keyDtype, valueDtype);
    const rounded = options.precision === 'fast' && dtype === 'bf16';
    const coarsest = isQuantised(dtype) || rounded ? coarser(dtype, qDtype) : qDtype;
    const expected = attentionOracle(oracle);
    compareWithOracle(name, result, expected, coarsest, options.precision);
    if (options.stats !== undefined) {
      compareStats(name, options.stats, expected, coarsest, options.precision);
    }
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
    const { keyDtype, valueDtype } = this.storage;
    return isQuantised(keyDtype) || keyDtype !== valueDtype ? 'f32' : keyDtype;
  }
}
