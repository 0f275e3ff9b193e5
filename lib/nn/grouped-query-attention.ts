/**
 * Grouped-query attention as a layer, for learning, testing and small models:
 *   y = output(attention(rope(query(q)), rope(key(k)), value(v))),   q, k, v [batch, tokens, dModel] -> y like q.
 * Inputs are f32, f16 or bf16; activations and the result are f32; weights keep the dtype they are loaded in.
 */
import { attention } from '../attention';
import { SeededRandom } from '../core/random';
import { DISPOSED } from '../core/storage';
import { disposeSymbol, Tensor } from '../core/tensor';
import { requireBoolean, requireInteger, requireOptions, stateError } from '../core/validate';
import type { KvSequence } from '../kv-cache/kv-cache';
import { readCall } from './attention-call';
import type { AttentionCall, AttentionForwardOptions, AttentionInputs } from './attention-call';
import { makeRope, requireProbability, requireSizes } from './attention-options';
import type { GroupedQueryAttentionOptions } from './attention-options';
import { checkAttentionWeights, copyWeights, initialWeights } from './attention-weights';
import type { AttentionWeights, Projection } from './attention-weights';
import { attendOverCache } from './cached-attention';
import type { HeadTensors } from './cached-attention';
import { Linear } from './linear';
import type { Rope } from './rope';

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

  /** Draws the initial weights, then a seed for each attention call under dropout. */
  private readonly random: SeededRandom;
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
    this.rope = makeRope(options.rope, this.headDim);
    this.random = new SeededRandom(requireInteger(options.seed ?? 0, 'options.seed', 0));
    this.weights = initialWeights(this, this.hasBias, this.random);
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

  [disposeSymbol](): void {
    this.dispose();
  }

  private usableLayers(): Record<Projection, Linear> {
    if (this.layers === null) throw stateError(DISPOSED, 'module', 'attention module');
    return this.layers;
  }

  /** All batch rows over the call's own keys. */
  private attend(call: AttentionCall, rows: ProjectedRows, context: Float32Array): void {
    const { batch, queryTokens, keyTokens } = call;
    for (let b = 0; b < batch; b++) this.rotate(call, rows, b, 0);
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
        stats: call.stats ?? undefined,
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
    call.stats?.fit(call.batch, call.queryTokens, this.heads);
    sequences.forEach((sequence, b) => {
      if (sequence.cache.positions === 'absolute') this.rotate(call, rows, b, sequence.length);
      const heads = this.headTensors(call, rows, context, b);
      attendOverCache(call, b, sequence, heads, () => this.nextDropout());
    });
  }

  /** RoPE on batch row b, whose first key stands at position `held` and whose last query stands at the last key. */
  private rotate(call: AttentionCall, rows: ProjectedRows, b: number, held: number): void {
    const { queryTokens, keyTokens } = call;
    const turn = (data: Float32Array, tokens: number, heads: number, start: number): void => {
      const from = b * tokens * heads * this.headDim;
      this.rope?.apply(data.subarray(from), tokens, heads, start);
    };
    turn(rows.query, queryTokens, this.heads, held + keyTokens - queryTokens);
    turn(rows.key, keyTokens, this.kvHeads, held);
  }

  private headTensors(
    call: AttentionCall,
    rows: ProjectedRows,
    context: Float32Array,
    b: number,
  ): HeadTensors {
    const { queryTokens, keyTokens } = call;
    const view = (data: Float32Array, tokens: number, heads: number): Tensor<'f32'> => {
      const size = tokens * heads * this.headDim;
      return Tensor.view(data.subarray(b * size, (b + 1) * size), [1, tokens, heads, this.headDim]);
    };
    return {
      query: view(rows.query, queryTokens, this.heads),
      key: view(rows.key, keyTokens, this.kvHeads),
      value: view(rows.value, keyTokens, this.kvHeads),
      out: view(context, queryTokens, this.heads),
    };
  }

  private nextDropout(): { probability: number; seed: number } | undefined {
    if (!this.training || this.dropout === 0) return undefined;
    return { probability: this.dropout, seed: this.random.next() };
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
