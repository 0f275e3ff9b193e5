/** What the layers of the runner agree on: weights from any format, one architecture, one way to run it. */
import type { AttentionStats } from '../core/attention-stats';
import type { BlockDType, FloatData, FloatDType } from '../core/dtype';
import type { KvCache, KvCacheOptions, KvSequence } from '../kv-cache/kv-cache';
import type { RopeScaling } from '../nn/rope';
import type { KvCacheSettings } from './cache-settings';

export type { RopeScaling };

/** One tensor of a checkpoint, dequantised where it was stored quantised (then dtype is 'f32'). */
export interface WeightTensor {
  shape: readonly number[];
  dtype: FloatDType;
  data: FloatData;
}

/** A matrix of a checkpoint, in GGUF's blocks where layers can multiply those. */
export type MatrixTensor = WeightTensor | BlockTensor;

export interface BlockTensor {
  shape: readonly number[];
  dtype: BlockDType;
  data: Uint8Array;
}

/**
 * A checkpoint, whatever its format. Names are Hugging Face's ('model.layers.0.self_attn.q_proj.weight'), matrices are
 * [out, in] row-major, and Q/K rows are in half-split RoPE order (GGUF's permutation is undone by its reader).
 */
export interface WeightSource {
  has(name: string): boolean;
  /** @throws GqaError INVALID_FILE where the tensor is missing or its shape is not `shape`. */
  load(name: string, shape: readonly number[]): WeightTensor;
  /** The same of what linear layers take. */
  loadMatrix(name: string, shape: readonly number[]): MatrixTensor;
  /** A matrix that `make` makes of others, under a name of its own: of use to a source that keeps what layers make of it. */
  derive?(name: string, shape: readonly number[], make: () => MatrixTensor): MatrixTensor;
  close(): void;
}

/** The numbers of an architecture, in the field's terms, the same from config.json and GGUF metadata. */
export interface ModelConfig {
  /** Which file of arch/ computes it; may have fields of its own beside these. */
  architecture: string;
  vocabSize: number;
  hiddenSize: number;
  intermediateSize: number;
  layers: number;
  heads: number;
  /** The largest number that a layer has. */
  kvHeads: number;
  /** Each layer's. */
  layerKvHeads: readonly number[];
  /** Read from the file; never derived where the file states it. */
  headDim: number;
  rmsNormEps: number;
  rope: {
    theta: number;
    scaling: RopeScaling | null;
    /** Leading elements of a head that are turned, where not all are. */
    rotaryDim?: number;
  };
  contextLength: number;
  tiedEmbeddings: boolean;
  attentionBias: boolean;
  mlpBias: boolean;
  bosTokenId: number | null;
  eosTokenIds: number[];
}

/** Watches the attention of a model: see LanguageModel.forward. */
export interface AttentionObserver {
  /** Of each layer: takes its statistics, [1, tokens, heads]. */
  readonly layers: readonly AttentionStats[];
  /** The layer's hold those of the newest tokens, a chunk of a long prompt; they are overwritten by the next. */
  record(layer: number): void;
}

/** The next tokens of one sequence; see LanguageModel.step. */
export interface TokenRun {
  sequence: KvSequence;
  ids: ArrayLike<number>;
  /** Logits after the last of the ids, after each of them, or none. */
  want: 'last' | 'all' | 'none';
}

/** `capacity`: tokens that a sequence must hold at least. */
export type CacheRequest = KvCacheSettings &
  Pick<KvCacheOptions, 'capacity' | 'sequences' | 'budgetTokens' | 'prefixTokens' | 'model'>;

/** A model ready to run, synchronously, in whichever thread holds it. */
export interface LanguageModel {
  readonly config: ModelConfig;
  /** Tokens that a step may have, of all its runs together. */
  readonly maxStepTokens: number;
  createCache(options: CacheRequest): KvCache;
  /**
   * Appends the next tokens of several sequences of one cache in one pass over the weights. Logits [rows, vocab], of the
   * first run's wanted rows first, are written to out. What a run gets does not depend on the others.
   */
  step(runs: readonly TokenRun[], out: Float32Array): void;
  /**
   * Appends ids to the sequence and returns logits: of the last token [vocab], or of every token [ids, vocab]; in `out`
   * where it is given, which must have just that length. Long prompts are cut into chunks inside.
   */
  forward(
    ids: ArrayLike<number>,
    sequence: KvSequence,
    want: 'last' | 'all',
    out?: Float32Array,
    observer?: AttentionObserver,
  ): Float32Array;
  /** Bytes of weights held. */
  readonly bytes: number;
  dispose(): void;
}
