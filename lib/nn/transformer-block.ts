/**
 * A pre-norm decoder block of the Llama family, its norms, projections, gates and additions fused in four calls:
 *   x += output(attention(rope(query(n)), cache(rope(key(n)), value(n)))),  n = rmsNorm(x)
 *   x += down(silu(gate(n)) * up(n)),                                       n = rmsNorm(x)
 * x [tokens, hiddenSize] f32, in place. The scratch is made once and shared by all blocks of a model.
 */
import { attention } from '../attention';
import { getBackend } from '../backend';
import type { Backend, FusedLinearArgs, LinearPart } from '../backend/contract';
import type { Precision } from '../core/precision';
import type { AttentionStats } from '../core/attention-stats';
import { Tensor } from '../core/tensor';
import type { KvSequence } from '../kv-cache/kv-cache';
import { checkRoom } from './inputs';
import { Linear } from './linear';
import type { RmsNorm } from './rms-norm';
import type { Rope } from './rope';

export interface BlockSizes {
  hiddenSize: number;
  intermediateSize: number;
  heads: number;
  /** The most that a block has. */
  kvHeads: number;
  headDim: number;
}

export type BlockLayers = Record<'attentionNorm' | 'mlpNorm', RmsNorm> &
  Record<'query' | 'key' | 'value' | 'output' | 'gate' | 'up' | 'down', Linear>;

/** Intermediate results of up to `maxTokens` tokens. */
export class BlockScratch {
  readonly query: Float32Array;
  readonly key: Float32Array;
  readonly value: Float32Array;
  /** What attention gives, [maxTokens, heads * headDim]. */
  readonly context: Float32Array;
  /** silu(gate) * up, [maxTokens, intermediateSize]. */
  readonly gated: Float32Array;
  /** By the number of KV heads. */
  private readonly views = new Map<number, AttentionViews>();

  constructor(
    readonly sizes: BlockSizes,
    readonly maxTokens: number,
    /** Of the calls over it: 'fast' may round what linear layers and attention multiply. */
    readonly precision: Precision = 'exact',
  ) {
    const { intermediateSize, heads, kvHeads, headDim } = sizes;
    const floats = (perToken: number): Float32Array => new Float32Array(maxTokens * perToken);
    this.gated = floats(intermediateSize);
    this.query = floats(heads * headDim);
    this.key = floats(kvHeads * headDim);
    this.value = floats(kvHeads * headDim);
    this.context = floats(heads * headDim);
  }

  /** Tensors over the first `tokens` rows of so many KV heads, kept until another number of tokens is asked for. */
  attentionViews(tokens: number, kvHeads: number): AttentionViews {
    const made = this.views.get(kvHeads);
    if (made?.tokens === tokens) return made;
    const { heads, headDim } = this.sizes;
    const view = (data: Float32Array, shape: number[]): Tensor<'f32'> =>
      Tensor.view(data.subarray(0, tokens * shape.at(-2)! * headDim), shape);
    const out = view(this.context, [1, tokens, heads, headDim]);
    const views = {
      tokens,
      query: view(this.query, [1, tokens, heads, headDim]),
      key: view(this.key, [tokens, kvHeads, headDim]),
      value: view(this.value, [tokens, kvHeads, headDim]),
      out,
      options: { out, precision: this.precision, stats: undefined },
    };
    this.views.set(kvHeads, views);
    return views;
  }
}

interface AttentionViews {
  tokens: number;
  query: Tensor<'f32'>;
  key: Tensor<'f32'>;
  value: Tensor<'f32'>;
  out: Tensor<'f32'>;
  options: { out: Tensor<'f32'>; precision: Precision; stats: AttentionStats | undefined };
}

/** The linear layers of a block over one scratch; x and tokens are set for each call. */
interface BlockCalls {
  scratch: BlockScratch;
  project: FusedLinearArgs;
  output: FusedLinearArgs;
  gate: FusedLinearArgs;
  down: FusedLinearArgs;
}

export class TransformerBlock {
  private readonly backend: Backend = getBackend();
  private readonly kvHeads: number;
  private calls: BlockCalls | null = null;

  constructor(
    private readonly layers: BlockLayers,
    private readonly rope: Rope,
  ) {
    this.kvHeads = layers.key.outFeatures / rope.headDim;
  }

  /** Bytes of weights held. */
  get bytes(): number {
    return Object.values(this.layers).reduce((sum, layer) => sum + layer.bytes, 0);
  }

  /**
   * Appends the tokens of x to `layer` of the sequence and transforms x [tokens, hiddenSize] in place. `stats` takes
   * the statistics of its attention, [1, tokens, heads].
   * @throws GqaError BUFFER_TOO_SMALL where x or the scratch is shorter; DISPOSED; what KvSequence.append and attention
   *   throw
   */
  forward(
    x: Float32Array,
    tokens: number,
    sequence: KvSequence,
    layer: number,
    scratch: BlockScratch,
    stats?: AttentionStats,
  ): void {
    const { sizes } = scratch;
    checkRoom('scratch', scratch.maxTokens, tokens);
    checkRoom('x', x.length, tokens * sizes.hiddenSize);
    const calls = this.prepare(scratch, x);
    const views = scratch.attentionViews(tokens, this.kvHeads);
    const start = sequence.length;

    this.run(calls.project, x, tokens);
    // A cache that counts positions itself turns queries and keys itself.
    if (sequence.cache.positions === 'absolute') {
      this.rope.apply(scratch.query, tokens, sizes.heads, start);
      this.rope.apply(scratch.key, tokens, this.kvHeads, start);
    }
    sequence.append(layer, views.key, views.value);
    views.options.stats = stats;
    attention(views.query, sequence.layer(layer), views.options);
    this.run(calls.output, scratch.context, tokens);
    this.run(calls.gate, x, tokens);
    this.run(calls.down, scratch.gated, tokens);
  }

  private run(call: FusedLinearArgs, x: Float32Array, tokens: number): void {
    call.x = x;
    call.tokens = tokens;
    this.backend.fusedLinear(call);
  }

  /** The calls over this scratch and x, made anew only where either is another one. */
  private prepare(scratch: BlockScratch, x: Float32Array): BlockCalls {
    const made = this.calls;
    if (made !== null && made.scratch === scratch && made.down.parts[0].out === x) return made;
    const { attentionNorm, query, key, value, output, mlpNorm, gate, up, down } = this.layers;
    const call = (
      input: Float32Array,
      norm: RmsNorm | null,
      parts: LinearPart[],
      combine: FusedLinearArgs['combine'],
    ): FusedLinearArgs => ({
      x: input,
      tokens: 0,
      norm: norm?.prologue ?? null,
      parts,
      combine,
      precision: scratch.precision,
    });
    const projected = [query.part(scratch.query), key.part(scratch.key), value.part(scratch.value)];
    const gated = [gate.part(scratch.gated), up.part(scratch.gated)];
    this.calls = {
      scratch,
      project: call(x, attentionNorm, projected, 'write'),
      output: call(scratch.context, null, [output.part(x)], 'add'),
      gate: call(x, mlpNorm, gated, 'swiglu'),
      down: call(scratch.gated, null, [down.part(x)], 'add'),
    };
    return this.calls;
  }

  dispose(): void {
    this.calls = null;
    for (const layer of Object.values(this.layers)) if (layer instanceof Linear) layer.dispose();
  }
}
