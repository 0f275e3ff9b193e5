/**
 * Grouped-query attention as a layer, for learning, testing and small models:
 *   y = output(attention(rope(query(q)), rope(key(k)), value(v))),   q, k, v [batch, tokens, dModel] -> y like q.
 * Inputs are f32, f16 or bf16; activations and the result are f32; weights keep the dtype they are loaded in.
 */
import { attention } from '../attention';
import { expectedError, GqaError } from '../core/errors';
import { Tensor } from '../core/tensor';
import { requireBoolean, requireFinite, requireInteger, requireOptions } from '../core/validate';
import type { KvSequence } from '../kv-cache/kv-cache';
import { readCall } from './attention-call';
import type { AttentionCall, AttentionForwardOptions, AttentionInputs } from './attention-call';
import { checkAttentionWeights, copyWeights, initialWeights } from './attention-weights';
import type { AttentionSizes, AttentionWeights, Projection } from './attention-weights';
import { attendOverCache } from './cached-attention';
import type { HeadTensors } from './cached-attention';
import { Linear } from './linear';
import { derivedSeed } from './random';
import { Rope } from './rope';
import type { RopeOptions } from './rope';

export interface GroupedQueryAttentionOptions {
  /** Width of inputs and outputs. */
  dModel: number;
  heads: number;
  /** Divides heads: heads / kvHeads query heads share one KV head. */
  kvHeads: number;
  /** Default dModel / heads, which must then be whole. */
  headDim?: number;
  /** Whether the four projections have biases; default false. */
  bias?: boolean;
  /** Probability that an attention weight is dropped while training; default 0. */
  dropout?: number;
  /** Rotary positions for queries and keys: true for theta 10,000, options, or a Rope shared with other layers. */
  rope?: boolean | Omit<RopeOptions, 'headDim'> | Rope;
  /** Of the initial weights and of dropout; default 0. */
  seed?: number;
}

export class GroupedQueryAttention {
  readonly dModel: number;
  readonly heads: number;
  readonly kvHeads: number;
  readonly headDim: number;
  readonly hasBias: boolean;
  readonly dropout: number;
  readonly rope: Rope | null;
  /** Whether dropout acts; false at first. See train() and eval(). */
  training = false;

  private readonly seed: number;
  /** Attention calls under dropout so far: each draws its own weights to drop. */
  private draws = 0;
  private weights: AttentionWeights;
  private layers: Record<Projection, Linear> | null;

  /**
   * Starts with Xavier uniform weights and zero biases, drawn from the seed.
   * @throws GqaError INVALID_ARGUMENT, OUT_OF_RANGE, NON_FINITE, HEADS_NOT_DIVISIBLE, INVALID_SHAPE (dModel is no
   *   multiple of heads and headDim is not given) or OUT_OF_MEMORY
   */
  constructor(options: GroupedQueryAttentionOptions) {
    const sizes = requireSizes(options);
    this.dModel = sizes.dModel;
    this.heads = sizes.heads;
    this.kvHeads = sizes.kvHeads;
    this.headDim = sizes.headDim;
    this.hasBias = requireBoolean(options.bias ?? false, 'options.bias');
    this.dropout = requireProbability(options.dropout ?? 0, 'options.dropout');
    this.rope = makeRope(options.rope ?? false, this.headDim);
    this.seed = requireInteger(options.seed ?? 0, 'options.seed', 0, 2 ** 32 - 1);
    this.weights = initialWeights(this, this.hasBias, this.seed);
    this.layers = makeLayers(this.weights);
  }

  /**
   * Attention of x over itself, or of q over k and v.
   *
   * Without a cache: Tk keys, those of k. With one: keys and values are appended to `layer` of it, and queries attend
   * over all it holds, causally unless `causal` is false; the last query is the newest position.
   * RoPE counts positions as attention does: key j stands at j, the last query at the last key.
   *
   * @param input x [B, T, dModel], or { q [B, Tq, dModel], k [B, Tk, dModel], v [B, Tk, dModel] }
   * @returns a new tensor [B, Tq, dModel]
   * @throws GqaError INVALID_ARGUMENT, INVALID_RANK, INVALID_SHAPE, INVALID_DTYPE, OUT_OF_RANGE, CAPACITY_EXCEEDED,
   *   LAYERS_UNEVEN, POSITION_EVICTED, DISPOSED or BUSY, before anything is appended
   */
  forward(input: Tensor | AttentionInputs, options: AttentionForwardOptions = {}): Tensor<'f32'> {
    const layers = this.usableLayers();
    const call = readCall(this, input, options);
    const { batch, queryTokens, keyTokens } = call;
    const rows = {
      query: project(layers.query, call.q, batch * queryTokens),
      key: project(layers.key, call.k, batch * keyTokens),
      value: project(layers.value, call.v, batch * keyTokens),
    };
    const context = new Float32Array(rows.query.length);
    if (call.sequences === null) this.attend(call, rows, context);
    else this.attendCached(call, call.sequences, rows, context);
    const y = project(layers.output, context, batch * queryTokens);
    return Tensor.view(y, [batch, queryTokens, this.dModel]);
  }

  /** Dropout acts from here on, unless `mode` is false. */
  train(mode = true): this {
    this.training = requireBoolean(mode, 'mode');
    return this;
  }

  /** Dropout does nothing from here on. */
  eval(): this {
    return this.train(false);
  }

  /** Copies of the parameters, in the dtypes they were loaded in; loadWeights takes them back. @throws GqaError DISPOSED */
  parameters(): AttentionWeights {
    this.usableLayers();
    return copyWeights(this.weights);
  }

  /**
   * Replaces the given parameters by copies and keeps the others.
   * @throws GqaError INVALID_ARGUMENT (an unknown name, or a bias where the module has none), INVALID_DTYPE,
   *   INVALID_RANK, INVALID_SHAPE, DISPOSED or BUSY, before anything is replaced
   */
  loadWeights(weights: Partial<AttentionWeights>): void {
    const old = this.usableLayers();
    checkAttentionWeights(this, this.hasBias, weights);
    const merged = { ...this.weights, ...copyWeights(weights) };
    this.layers = makeLayers(merged);
    this.weights = merged;
    for (const layer of Object.values(old)) layer.dispose();
  }

  /** Frees the packed weights; a second call does nothing. */
  dispose(): void {
    for (const layer of Object.values(this.layers ?? {})) layer.dispose();
    this.layers = null;
  }

  private usableLayers(): Record<Projection, Linear> {
    if (this.layers === null) throw new GqaError('DISPOSED', 'This attention module was disposed');
    return this.layers;
  }

  /** All batch rows over the call's own keys. */
  private attend(call: AttentionCall, rows: ProjectedRows, context: Float32Array): void {
    const { batch, queryTokens, keyTokens } = call;
    for (let b = 0; b < batch; b++) this.headTensors(call, rows, context, b, 0);
    const view = (data: Float32Array, tokens: number, heads: number): Tensor<'f32'> =>
      Tensor.view(data, [batch, tokens, heads, this.headDim]);
    attention(
      view(rows.query, queryTokens, this.heads),
      view(rows.key, keyTokens, this.kvHeads),
      view(rows.value, keyTokens, this.kvHeads),
      {
        ...call.features,
        mask: call.mask,
        out: view(context, queryTokens, this.heads),
        dropout: this.nextDropout(),
      },
    );
  }

  /** Each batch row over its own sequence. */
  private attendCached(
    call: AttentionCall,
    sequences: readonly KvSequence[],
    rows: ProjectedRows,
    context: Float32Array,
  ): void {
    sequences.forEach((sequence, b) => {
      const heads = this.headTensors(call, rows, context, b, sequence.length);
      attendOverCache(call, b, sequence, heads, () => this.nextDropout());
    });
  }

  /** Batch row b with RoPE applied; its first key stands at position `held`. */
  private headTensors(
    call: AttentionCall,
    rows: ProjectedRows,
    context: Float32Array,
    b: number,
    held: number,
  ): HeadTensors {
    const { queryTokens, keyTokens } = call;
    const view = (data: Float32Array, tokens: number, heads: number): Tensor<'f32'> => {
      const size = tokens * heads * this.headDim;
      return Tensor.view(data.subarray(b * size, (b + 1) * size), [1, tokens, heads, this.headDim]);
    };
    const query = view(rows.query, queryTokens, this.heads);
    const key = view(rows.key, keyTokens, this.kvHeads);
    // The last query stands at the last key.
    this.rope?.apply(query.data, queryTokens, this.heads, held + keyTokens - queryTokens);
    this.rope?.apply(key.data, keyTokens, this.kvHeads, held);
    return {
      query,
      key,
      value: view(rows.value, keyTokens, this.kvHeads),
      out: view(context, queryTokens, this.heads),
    };
  }

  private nextDropout(): { probability: number; seed: number } | undefined {
    if (!this.training || this.dropout === 0) return undefined;
    return { probability: this.dropout, seed: derivedSeed(this.seed, ++this.draws) };
  }
}

/** Projections of all batch rows, [batch * tokens, heads * headDim] each. */
interface ProjectedRows {
  query: Float32Array;
  key: Float32Array;
  value: Float32Array;
}

function project(layer: Linear, x: Float32Array, tokens: number): Float32Array {
  const out = new Float32Array(tokens * layer.outFeatures);
  layer.apply(x, out, tokens);
  return out;
}

function makeLayers(weights: AttentionWeights): Record<Projection, Linear> {
  const make = (name: Projection): Linear => new Linear(weights[name], weights[`${name}Bias`]);
  return { query: make('query'), key: make('key'), value: make('value'), output: make('output') };
}

function requireSizes(options: GroupedQueryAttentionOptions): AttentionSizes {
  requireOptions(options, 'options');
  const dModel = requireInteger(options.dModel, 'options.dModel', 1);
  const heads = requireInteger(options.heads, 'options.heads', 1);
  const kvHeads = requireInteger(options.kvHeads, 'options.kvHeads', 1);
  if (heads % kvHeads !== 0) {
    const expected = `a divisor of heads (${heads})`;
    throw expectedError('HEADS_NOT_DIVISIBLE', 'options.kvHeads', expected, String(kvHeads));
  }
  if (options.headDim === undefined && dModel % heads !== 0) {
    const expected = `a multiple of heads (${heads}), or headDim given,`;
    throw expectedError('INVALID_SHAPE', 'options.dModel', expected, String(dModel));
  }
  const headDim = requireInteger(options.headDim ?? dModel / heads, 'options.headDim', 1);
  return { dModel, heads, kvHeads, headDim };
}

function requireProbability(value: unknown, argument: string): number {
  const probability = requireFinite(value, argument);
  if (probability >= 0 && probability < 1) return probability;
  throw expectedError('OUT_OF_RANGE', argument, 'a number from 0 to below 1', String(value));
}

function makeRope(
  rope: boolean | Omit<RopeOptions, 'headDim'> | Rope,
  headDim: number,
): Rope | null {
  if (rope === false) return null;
  if (rope === true) return new Rope({ headDim });
  if (!(rope instanceof Rope)) {
    requireOptions(rope, 'options.rope');
    return new Rope({ ...rope, headDim });
  }
  if (rope.headDim !== headDim) {
    const expected = `a Rope with headDim ${headDim}`;
    throw expectedError('INVALID_SHAPE', 'options.rope', expected, String(rope.headDim));
  }
  return rope;
}

type EndOptions = Omit<GroupedQueryAttentionOptions, 'kvHeads'>;

/** Grouped-query attention with as many KV heads as query heads. */
export class MultiHeadAttention extends GroupedQueryAttention {
  constructor(options: EndOptions) {
    requireOptions(options, 'options');
    super({ ...options, kvHeads: options.heads });
  }
}

/** Grouped-query attention with a single KV head. */
export class MultiQueryAttention extends GroupedQueryAttention {
  constructor(options: EndOptions) {
    requireOptions(options, 'options');
    super({ ...options, kvHeads: 1 });
  }
}
