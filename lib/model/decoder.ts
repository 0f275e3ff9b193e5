/**
 * A decoder-only language model: token embeddings, blocks, a final norm and an output head. Architectures say of which
 * parts (arch/); running them is the same for all:
 *   x = scale * embed(ids) [+ embedPosition(positions)];  x = block_i(x) for all i;  logits = softcap(head(norm(x)))
 */
import type { Precision } from '../core/precision';
import { expectedError, GqaError } from '../core/errors';
import { KvCache } from '../kv-cache/kv-cache';
import type { KvSequence, LayerShape } from '../kv-cache/kv-cache';
import { checkTokenIds, Embedding } from '../nn/embedding';
import { FusedLinear, type Norm } from '../nn/fused-linear';
import { checkRoom } from '../nn/inputs';
import type { Linear } from '../nn/linear';
import type { Rope } from '../nn/rope';
import { Scratch } from '../nn/scratch';
import type { Tokens } from '../nn/sublayer';
import type { Block } from '../nn/transformer-block';
import type {
  AttentionObserver,
  CacheRequest,
  LanguageModel,
  ModelConfig,
  TokenRun,
} from './types';

/**
 * Tokens that go through the layers together. Enough for the matrix products to read each weight once for many
 * tokens; few enough for the activations of a chunk to stay in the outer caches.
 */
const STEP_TOKENS = 256;

export interface DecoderParts {
  embedding: Linear;
  /** What embeddings are multiplied by; default 1. */
  embeddingScale?: number;
  /** Learned embeddings of positions [contextLength, hiddenSize], added to those of the tokens. */
  positionEmbedding?: Linear;
  blocks: readonly Block[];
  norm: Norm;
  /** May be the embedding. */
  head: Linear;
  /** c of logits = c tanh(logits / c). */
  logitSoftcap?: number | null;
  /** What turns keys and queries where the cache counts positions; null where it cannot. */
  rope: Rope | null;
}

/** Some of a run's ids. */
interface Part {
  sequence: KvSequence;
  ids: ArrayLike<number>;
  from: number;
  tokens: number;
  want: TokenRun['want'];
}

export class Decoder implements LanguageModel {
  readonly maxStepTokens = STEP_TOKENS;
  private readonly scratch: Scratch;
  private readonly embedding: Embedding;
  private readonly positionEmbedding: Embedding | null;
  private readonly predict: FusedLinear;
  private disposed = false;

  constructor(
    readonly config: ModelConfig,
    private readonly parts: DecoderParts,
    precision: Precision,
  ) {
    this.embedding = new Embedding(parts.embedding);
    this.positionEmbedding = parts.positionEmbedding
      ? new Embedding(parts.positionEmbedding)
      : null;
    this.predict = new FusedLinear(parts.norm, [parts.head], 'write');
    this.scratch = new Scratch(STEP_TOKENS, precision);
  }

  get bytes(): number {
    const { embedding, positionEmbedding, blocks, norm, head } = this.parts;
    const held = new Set([embedding, ...blocks, norm, head]);
    const sum = [...held].reduce((bytes, part) => bytes + part.bytes, 0);
    return sum + (positionEmbedding?.bytes ?? 0);
  }

  /** A windowed cache is given room for a whole chunk beside its window, so that prompts need not be fed in morsels. */
  createCache(options: CacheRequest): KvCache {
    const { window, sinkTokens = 0, positions } = options;
    const chunked = window === undefined ? 0 : sinkTokens + window + STEP_TOKENS - 1;
    const capacity = Math.max(options.capacity, chunked);
    const layers = this.parts.blocks.map(({ cacheShape }) => narrowed(cacheShape, options));
    const rope = positions === 'cache' ? this.rope : undefined;
    return new KvCache({ ...options, layers, headDim: this.config.headDim, capacity, rope });
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
    this.checkRun({ ids, sequence, want }, 'ids', 'sequence');
    const { vocabSize } = this.config;
    const size = (want === 'all' ? ids.length : 1) * vocabSize;
    const logits = out ?? new Float32Array(size);
    checkRoom('out', logits.length, size);
    for (let from = 0, to; from < ids.length; from = to) {
      to = Math.min(ids.length, from + STEP_TOKENS, from + sequence.longestChunk);
      const wanted = want === 'all' ? 'all' : to === ids.length ? 'last' : 'none';
      const target = want === 'all' ? logits.subarray(from * vocabSize) : logits;
      const part = { sequence, ids, from, tokens: to - from, want: wanted } as const;
      this.run(sequence.cache, [part], target, observer);
    }
    return logits;
  }

  /**
   * @throws GqaError as forward; INVALID_ARGUMENT (no runs, a sequence twice or of another cache), OUT_OF_RANGE (more than
   *   maxStepTokens, or than a window lets a sequence take at once), CAPACITY_EXCEEDED, before anything is appended
   */
  step(runs: readonly TokenRun[], out: Float32Array): void {
    let rows = 0;
    let tokens = 0;
    const parts = runs.map((run, i): Part => {
      this.checkRun(run, `runs[${i}].ids`, `runs[${i}].sequence`);
      const { ids, want } = run;
      rows += want === 'all' ? ids.length : want === 'last' ? 1 : 0;
      tokens += ids.length;
      return { ...run, from: 0, tokens: ids.length };
    });
    if (tokens === 0 || tokens > STEP_TOKENS) {
      const expected = `1 to ${STEP_TOKENS} tokens together`;
      throw expectedError('OUT_OF_RANGE', 'runs', expected, String(tokens));
    }
    checkRoom('out', out.length, rows * this.config.vocabSize);
    this.run(runs[0].sequence.cache, parts, out);
  }

  /** All parts through all blocks, and the logits they want, one part's rows after another's, into out. */
  private run(
    cache: KvCache,
    parts: readonly Part[],
    out: Float32Array,
    observer?: AttentionObserver,
  ): void {
    const { scratch } = this;
    const { hiddenSize } = this.config;
    const step = cache.step(parts, { cascade: false });
    const tokens: Tokens = { rows: step.tokens, step, scratch };
    const x = scratch.rows('x', hiddenSize);
    this.embed(parts, step.positions, x);
    this.parts.blocks.forEach((block, layer) => {
      block.forward(x, tokens, layer, observer?.layers[layer]);
      observer?.record(layer);
    });
    this.logits(parts, x, out);
  }

  private embed(parts: readonly Part[], positions: Float64Array, x: Float32Array): void {
    const { hiddenSize } = this.config;
    const { embeddingScale = 1 } = this.parts;
    let row = 0;
    for (const { ids, from, tokens } of parts) {
      this.embedding.apply(ids, x.subarray(row * hiddenSize), from, tokens);
      row += tokens;
    }
    const count = row * hiddenSize;
    if (embeddingScale !== 1) for (let i = 0; i < count; i++) x[i] *= embeddingScale;
    if (this.positionEmbedding === null) return;
    const added = this.scratch.rows('branch', hiddenSize);
    this.positionEmbedding.apply(positions, added);
    for (let i = 0; i < count; i++) x[i] += added[i];
  }

  /** Of the wanted rows of x; these are moved together first, because the head takes one run of rows. */
  private logits(parts: readonly Part[], x: Float32Array, out: Float32Array): void {
    const { hiddenSize, vocabSize } = this.config;
    let row = 0;
    let wanted = 0;
    for (const { tokens, want } of parts) {
      const first = want === 'all' ? row : row + tokens - 1;
      const count = want === 'all' ? tokens : want === 'last' ? 1 : 0;
      x.copyWithin(wanted * hiddenSize, first * hiddenSize, (first + count) * hiddenSize);
      wanted += count;
      row += tokens;
    }
    if (wanted === 0) return;
    this.predict.run(x, wanted, [out], this.scratch);
    const { logitSoftcap } = this.parts;
    if (!logitSoftcap) return;
    const count = wanted * vocabSize;
    for (let i = 0; i < count; i++) out[i] = logitSoftcap * Math.tanh(out[i] / logitSoftcap);
  }

  private get rope(): Rope {
    const { rope } = this.parts;
    if (rope !== null) return rope;
    const expected = "'absolute': this model does not turn all its keys by one RoPE";
    throw expectedError('UNSUPPORTED_MODEL', 'positions', expected, "'cache'");
  }

  private checkRun({ ids, sequence }: TokenRun, argument: string, sequenceArgument: string): void {
    if (this.disposed) throw new GqaError('DISPOSED', 'This model was disposed');
    if (ids.length === 0) {
      throw expectedError('EMPTY_PROMPT', argument, 'at least one token', 'none');
    }
    checkTokenIds(ids, this.config.vocabSize);
    sequence.checkUsable(sequenceArgument);
    const left = this.roomOf(sequence);
    if (ids.length > left) {
      const expected = `at most ${left} tokens, what is left of the cache,`;
      throw expectedError('CONTEXT_EXCEEDED', argument, expected, String(ids.length));
    }
  }

  /** Learned positions end, whatever the cache could hold. */
  private roomOf(sequence: KvSequence): number {
    if (this.positionEmbedding === null) return sequence.room;
    return Math.min(sequence.room, this.positionEmbedding.vocabSize - sequence.length);
  }

  dispose(): void {
    this.disposed = true;
    for (const block of this.parts.blocks) block.dispose();
    this.parts.embedding.dispose();
    this.parts.positionEmbedding?.dispose();
    this.parts.head.dispose();
  }
}

/** A layer with its own window, with the smaller one that the caller asks for, or without one that nothing outgrows. */
function narrowed(shape: LayerShape, { window = Infinity, capacity }: CacheRequest): LayerShape {
  if (shape.window === undefined) return shape;
  if (window <= shape.window || capacity <= shape.window) return { ...shape, window: undefined };
  return shape;
}
