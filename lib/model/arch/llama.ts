/**
 * The Llama architecture: token embedding, pre-norm blocks of grouped-query attention (RoPE, half-split) and a SwiGLU
 * MLP, a final RMSNorm and an output head, which may be the embedding again. Weights keep their checkpoint's dtype,
 * GGUF's Q8_0, Q4_0 and Q4_1 included; activations are f32, which 'fast' linear layers may round.
 */
import { getBackend } from '../../backend';
import type { Backend } from '../../backend/contract';
import type { Precision } from '../../core/precision';
import { expectedError, GqaError } from '../../core/errors';
import { KvCache } from '../../kv-cache/kv-cache';
import type { KvSequence } from '../../kv-cache/kv-cache';
import { checkTokenIds, Embedding } from '../../nn/embedding';
import { checkRoom } from '../../nn/inputs';
import { Linear } from '../../nn/linear';
import { RmsNorm } from '../../nn/rms-norm';
import { Rope } from '../../nn/rope';
import { BlockScratch, TransformerBlock, type BlockLayers } from '../../nn/transformer-block';
import type { KvCacheSettings } from '../cache-settings';
import type { AttentionObserver, LanguageModel, ModelConfig, WeightSource } from '../types';

/**
 * Tokens that go through the layers together. Enough for the matrix products to read each weight once for many
 * tokens; few enough for the activations of a chunk to stay in the outer caches.
 */
const CHUNK_TOKENS = 256;

/** Reads the weights and returns the model. @throws GqaError INVALID_FILE, OUT_OF_MEMORY */
export function loadLlama(
  config: ModelConfig,
  weights: WeightSource,
  precision: Precision = 'exact',
): LanguageModel {
  const { hiddenSize, vocabSize, rmsNormEps } = config;
  const load = (name: string): Linear =>
    new Linear(weights.loadMatrix(name, [vocabSize, hiddenSize]));
  const table = load('model.embed_tokens.weight');
  const rope = new Rope({ headDim: config.headDim, ...config.rope });
  const blocks = Array.from(
    { length: config.layers },
    (_, i) => new TransformerBlock(loadBlockLayers(config, weights, i), rope),
  );
  const norm = weights.load('model.norm.weight', [hiddenSize]);
  const head = config.tiedEmbeddings ? table : load('lm_head.weight');
  return new Llama(config, table, blocks, rope, new RmsNorm(norm, rmsNormEps), head, precision);
}

/** Norms and projections of one layer, as TransformerBlock takes them. @throws GqaError INVALID_FILE, OUT_OF_MEMORY */
export function loadBlockLayers(
  config: ModelConfig,
  weights: WeightSource,
  layer: number,
): BlockLayers {
  const { hiddenSize, intermediateSize, heads, headDim } = config;
  const kvHeads = config.layerKvHeads[layer];
  const prefix = `model.layers.${layer}.`;
  const norm = (name: string): RmsNorm =>
    new RmsNorm(weights.load(`${prefix}${name}.weight`, [hiddenSize]), config.rmsNormEps);
  const linear = (name: string, out: number, input: number, bias: boolean): Linear =>
    new Linear(
      weights.loadMatrix(`${prefix}${name}.weight`, [out, input]),
      bias ? weights.load(`${prefix}${name}.bias`, [out]) : null,
    );
  const { attentionBias, mlpBias } = config;
  return {
    attentionNorm: norm('input_layernorm'),
    query: linear('self_attn.q_proj', heads * headDim, hiddenSize, attentionBias),
    key: linear('self_attn.k_proj', kvHeads * headDim, hiddenSize, attentionBias),
    value: linear('self_attn.v_proj', kvHeads * headDim, hiddenSize, attentionBias),
    output: linear('self_attn.o_proj', hiddenSize, heads * headDim, attentionBias),
    mlpNorm: norm('post_attention_layernorm'),
    gate: linear('mlp.gate_proj', intermediateSize, hiddenSize, mlpBias),
    up: linear('mlp.up_proj', intermediateSize, hiddenSize, mlpBias),
    down: linear('mlp.down_proj', hiddenSize, intermediateSize, mlpBias),
  };
}

class Llama implements LanguageModel {
  private readonly scratch: BlockScratch;
  /** The residual stream of a chunk, [CHUNK_TOKENS, hiddenSize]. */
  private readonly x: Float32Array;
  private readonly embedding: Embedding;
  private readonly backend: Backend = getBackend();
  private disposed = false;

  /** `head` may be the table itself. */
  constructor(
    readonly config: ModelConfig,
    private readonly table: Linear,
    private readonly blocks: readonly TransformerBlock[],
    private readonly rope: Rope,
    private readonly norm: RmsNorm,
    private readonly head: Linear,
    precision: Precision,
  ) {
    this.embedding = new Embedding(table);
    this.scratch = new BlockScratch(config, CHUNK_TOKENS, precision);
    this.x = new Float32Array(CHUNK_TOKENS * config.hiddenSize);
  }

  get bytes(): number {
    const parts = new Set([this.table, ...this.blocks, this.norm, this.head]);
    return [...parts].reduce((sum, part) => sum + part.bytes, 0);
  }

  /** A windowed cache is given room for a whole chunk beside its window, so that prompts need not be fed in morsels. */
  createCache(options: KvCacheSettings & { capacity: number }): KvCache {
    const { layerKvHeads, headDim } = this.config;
    const layers = layerKvHeads.map((kvHeads) => ({ kvHeads }));
    const { window, sinkTokens = 0, positions } = options;
    const chunked = window === undefined ? 0 : sinkTokens + window + CHUNK_TOKENS - 1;
    const capacity = Math.max(options.capacity, chunked);
    const rope = positions === 'cache' ? this.rope : undefined;
    return new KvCache({ ...options, layers, headDim, capacity, rope });
  }

  /**
   * @throws GqaError EMPTY_PROMPT, OUT_OF_RANGE (an id outside the vocabulary), CONTEXT_EXCEEDED (more than a cache
   *   without a window has left), BUFFER_TOO_SMALL (out), DISPOSED or BUSY, before anything is appended
   */
  forward(
    ids: ArrayLike<number>,
    sequence: KvSequence,
    want: 'last' | 'all',
    out?: Float32Array,
    observer?: AttentionObserver,
  ): Float32Array {
    this.checkForward(ids, sequence);
    const { vocabSize } = this.config;
    const size = (want === 'all' ? ids.length : 1) * vocabSize;
    const logits = out ?? new Float32Array(size);
    checkRoom('out', logits.length, size);
    for (let from = 0, to; from < ids.length; from = to) {
      to = Math.min(ids.length, from + CHUNK_TOKENS, from + sequence.longestChunk);
      const tokens = to - from;
      this.transform(ids, from, tokens, sequence, observer);
      if (want === 'all') this.predict(0, tokens, logits.subarray(from * vocabSize));
      else if (to === ids.length) this.predict(tokens - 1, 1, logits);
    }
    return logits;
  }

  /** Runs ids[from .. from + tokens) through all blocks; x is then their last hidden state. */
  private transform(
    ids: ArrayLike<number>,
    from: number,
    tokens: number,
    sequence: KvSequence,
    observer: AttentionObserver | undefined,
  ): void {
    this.embedding.apply(ids, this.x, from, tokens);
    this.blocks.forEach((block, layer) => {
      block.forward(this.x, tokens, sequence, layer, this.scratch, observer?.layers[layer]);
      observer?.record(layer);
    });
  }

  /** Logits of rows [first, first + tokens) of x into out [tokens, vocabSize]. */
  private predict(first: number, tokens: number, out: Float32Array): void {
    this.backend.fusedLinear({
      x: this.x.subarray(first * this.config.hiddenSize),
      tokens,
      norm: this.norm.prologue,
      parts: [this.head.part(out)],
      combine: 'write',
      precision: this.scratch.precision,
    });
  }

  private checkForward(ids: ArrayLike<number>, sequence: KvSequence): void {
    if (this.disposed) throw new GqaError('DISPOSED', 'This model was disposed');
    if (ids.length === 0) throw expectedError('EMPTY_PROMPT', 'ids', 'at least one token', 'none');
    checkTokenIds(ids, this.config.vocabSize);
    sequence.checkUsable('sequence');
    const left = sequence.room;
    if (ids.length > left) {
      const expected = `at most ${left} tokens, what is left of the cache,`;
      throw expectedError('CONTEXT_EXCEEDED', 'ids', expected, String(ids.length));
    }
  }

  dispose(): void {
    this.disposed = true;
    for (const block of this.blocks) block.dispose();
    this.table.dispose();
    this.head.dispose();
  }
}
