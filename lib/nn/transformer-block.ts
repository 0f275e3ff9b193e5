/**
 * A pre-norm decoder block of the Llama family:
 *   x += output(attention(rope(query(n)), cache(rope(key(n)), value(n)))),  n = rmsNorm(x)
 *   x += down(silu(gate(n)) * up(n)),                                       n = rmsNorm(x)
 * x [tokens, hiddenSize] f32, in place. The scratch is made once and shared by all blocks of a model.
 */
import { attention } from '../attention';
import { getBackend } from '../backend';
import type { Backend } from '../backend/contract';
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
  kvHeads: number;
  headDim: number;
}

export type BlockLayers = Record<'attentionNorm' | 'mlpNorm', RmsNorm> &
  Record<'query' | 'key' | 'value' | 'output' | 'gate' | 'up' | 'down', Linear>;

/** Intermediate results of up to `maxTokens` tokens. */
export class BlockScratch {
  /** [maxTokens, hiddenSize]: the normed input, later what is added to x. */
  readonly hidden: Float32Array;
  readonly gate: Float32Array;
  readonly up: Float32Array;
  private readonly query: Float32Array;
  private readonly key: Float32Array;
  private readonly value: Float32Array;
  private readonly context: Float32Array;
  private views: AttentionViews | null = null;

  constructor(
    readonly sizes: BlockSizes,
    readonly maxTokens: number,
  ) {
    const { hiddenSize, intermediateSize, heads, kvHeads, headDim } = sizes;
    const floats = (perToken: number): Float32Array => new Float32Array(maxTokens * perToken);
    this.hidden = floats(hiddenSize);
    this.gate = floats(intermediateSize);
    this.up = floats(intermediateSize);
    this.query = floats(heads * headDim);
    this.key = floats(kvHeads * headDim);
    this.value = floats(kvHeads * headDim);
    this.context = floats(heads * headDim);
  }

  /** Tensors over the first `tokens` rows, kept until another number of tokens is asked for. */
  attentionViews(tokens: number): AttentionViews {
    if (this.views?.tokens === tokens) return this.views;
    const { heads, kvHeads, headDim } = this.sizes;
    const view = (data: Float32Array, shape: number[]): Tensor<'f32'> =>
      Tensor.view(data.subarray(0, tokens * shape.at(-2)! * headDim), shape);
    const out = view(this.context, [1, tokens, heads, headDim]);
    this.views = {
      tokens,
      query: view(this.query, [1, tokens, heads, headDim]),
      key: view(this.key, [tokens, kvHeads, headDim]),
      value: view(this.value, [tokens, kvHeads, headDim]),
      out,
      options: { out },
    };
    return this.views;
  }
}

interface AttentionViews {
  tokens: number;
  query: Tensor<'f32'>;
  key: Tensor<'f32'>;
  value: Tensor<'f32'>;
  out: Tensor<'f32'>;
  options: { out: Tensor<'f32'> };
}

export class TransformerBlock {
  private readonly backend: Backend = getBackend();

  constructor(
    private readonly layers: BlockLayers,
    private readonly rope: Rope,
  ) {}

  /** Bytes of weights held. */
  get bytes(): number {
    return Object.values(this.layers).reduce((sum, layer) => sum + layer.bytes, 0);
  }

  /**
   * Appends the tokens of x to `layer` of the sequence and transforms x [tokens, hiddenSize] in place.
   * @throws GqaError BUFFER_TOO_SMALL where x or the scratch is shorter; what KvSequence.append and attention throw
   */
  forward(
    x: Float32Array,
    tokens: number,
    sequence: KvSequence,
    layer: number,
    scratch: BlockScratch,
  ): void {
    checkRoom('scratch', scratch.maxTokens, tokens);
    checkRoom('x', x.length, tokens * scratch.sizes.hiddenSize);
    this.addAttention(x, tokens, sequence, layer, scratch);
    this.addMlp(x, tokens, scratch);
  }

  private addAttention(
    x: Float32Array,
    tokens: number,
    sequence: KvSequence,
    layer: number,
    scratch: BlockScratch,
  ): void {
    const { attentionNorm, query, key, value, output } = this.layers;
    const { hidden, sizes } = scratch;
    const views = scratch.attentionViews(tokens);
    const start = sequence.length;

    attentionNorm.apply(x, hidden, tokens);
    query.apply(hidden, views.query.data, tokens);
    key.apply(hidden, views.key.data, tokens);
    value.apply(hidden, views.value.data, tokens);
    this.rope.apply(views.query.data, tokens, sizes.heads, start);
    this.rope.apply(views.key.data, tokens, sizes.kvHeads, start);

    sequence.append(layer, views.key, views.value);
    attention(views.query, sequence.layer(layer), views.options);
    output.apply(views.out.data, hidden, tokens);
    this.backend.add(x, hidden, tokens * sizes.hiddenSize);
  }

  private addMlp(x: Float32Array, tokens: number, scratch: BlockScratch): void {
    const { mlpNorm, gate, up, down } = this.layers;
    const { hidden, sizes } = scratch;

    mlpNorm.apply(x, hidden, tokens);
    gate.apply(hidden, scratch.gate, tokens);
    up.apply(hidden, scratch.up, tokens);
    this.backend.swiglu({
      gate: scratch.gate,
      up: scratch.up,
      out: scratch.gate,
      count: tokens * sizes.intermediateSize,
    });
    down.apply(scratch.gate, hidden, tokens);
    this.backend.add(x, hidden, tokens * sizes.hiddenSize);
  }

  dispose(): void {
    for (const layer of Object.values(this.layers)) if (layer instanceof Linear) layer.dispose();
  }
}
