/** The part of the contract that is about the KV cache: arenas of blocks, what moves in them, what attends over them. */
import type { CacheDType, FloatData, FloatDType } from '../core/dtype';
import type { Precision } from '../core/precision';

/**
 * Geometry of one layer's storage. A block holds `blockTokens` token slots for every KV head.
 *
 * Rotated keys or values are stored turned by the orthogonal Hadamard rotation of docs/numerics.md; whatever reads them
 * turns queries likewise and results back, so that attention is the same but for rounding.
 */
export interface ArenaLayout {
  kvHeads: number;
  headDim: number;
  valueDim: number;
  keyDtype: CacheDType;
  valueDtype: CacheDType;
  rotateKeys: boolean;
  rotateValues: boolean;
  /** A multiple of 16, at most 64; 64 where either dtype is quantised. */
  blockTokens: number;
  blocks: number;
}

/** Opaque storage of one layer's blocks, zeroed at creation. Its inner order belongs to the backend. */
export interface Arena {
  readonly layout: ArenaLayout;
  readonly bytes: number;
  dispose(): void;
}

/**
 * Where a sequence's tokens lie. The block of ordinal o holds absolute positions [o * blockTokens, (o + 1) * blockTokens):
 * ids[o] for o < sinkBlocks, else ids[sinkBlocks + (o - sinkBlocks) % ringBlocks].
 */
export interface BlockTable {
  ids: Int32Array;
  sinkBlocks: number;
  ringBlocks: number;
}

/**
 * Writes rows [from, from + count) of k and v at absolute positions position .. position + count - 1. The arena holds
 * floats: quantised blocks are made of whole ones by copyBlock.
 */
export interface StoreArgs {
  arena: Arena;
  table: BlockTable;
  /** [tokens, kvHeads, headDim] and [tokens, kvHeads, valueDim], both of `dtype`. */
  k: FloatData;
  v: FloatData;
  dtype: FloatDType;
  from: number;
  count: number;
  position: number;
}

/**
 * A block of one arena into one of another, or of the same, of equal shape, rotations and blockTokens. Where the dtypes
 * differ its numbers are quantised, or dequantised and rounded.
 */
export interface CopyBlockArgs {
  from: Arena;
  fromId: number;
  to: Arena;
  toId: number;
}

/** The token at position from[i] also at position to + i, i < count, in ascending order; floats only; from[i] >= to + i. */
export interface MoveTokensArgs {
  arena: Arena;
  table: BlockTable;
  from: Int32Array;
  to: number;
  count: number;
}

/**
 * A block in the form of snapshots, which no backend's order shows in (docs/snapshots.md): blockBytes(layout) bytes.
 * Reading writes zeros for the slots from `tokens` on.
 */
export interface BlockBytesArgs {
  arena: Arena;
  id: number;
  bytes: Uint8Array;
  /** Leading slots that hold a token. */
  tokens: number;
}

/** Blocks of floats that are read instead of the source's own: of ordinals below sinkOrdinals, and from firstOrdinal on. */
export interface TailSource {
  arena: Arena;
  table: BlockTable;
  sinkOrdinals: number;
  firstOrdinal: number;
}

/** Keys and values in a cache; batch is 1. Key j is absolute position j. Visible keys are all held (checked before). */
export interface CacheSource {
  type: 'cache';
  arena: Arena;
  table: BlockTable;
  tail: TailSource | null;
}

/** Columns of StepPlan.entries. */
export const enum EntrySlot {
  /** Row of q, counted in tokens, where the sequence's queries begin, and how many there are. */
  firstToken,
  tokens,
  /** Tokens of the sequence, those of this step included. */
  keyTokens,
  /** Index in `ids` of the first id of its table, and of its tail's. */
  ids,
  tailIds,
  tailSinkOrdinals,
  tailFirstOrdinal,
  /** Index in `trees` of its first tree, -1 for none. */
  tree,
  width,
}

/** Columns of StepPlan.shares. */
export const enum ShareSlot {
  /** Keys [firstKey, lastKey), whole blocks. */
  firstKey,
  lastKey,
  /** Index in `members` of the first of the entries that share them, and how many do. */
  member,
  members,
  width,
}

/**
 * Sequences of one cache that attend in one call, each causally over its own keys. Made once a step, read by all layers
 * of one geometry.
 */
export interface StepPlan {
  /** Of every sequence's table, and tail's table. */
  sinkBlocks: number;
  ringBlocks: number;
  tailSinkBlocks: number;
  tailRingBlocks: number;
  /** [count][EntrySlot.width] */
  entries: Float64Array;
  count: number;
  /** The tables of all entries. */
  ids: Int32Array;
  /**
   * The tokens of an entry may be a tree instead of a chain: depths [tokens], 0 for a root, then [tokens][tokens], 1 where
   * row i sees token j of the entry (itself included). A row's position is that of the entry's first token plus its depth:
   * the keys before the step are visible by that, the window included, and ALiBi counts distances by it.
   */
  trees: Int32Array;
  /**
   * Runs of keys that several entries hold in the same blocks and that all their rows see wholly: a backend may read
   * them once for all of these. Those of an entry are in ascending order, and begin where the one before ended, at key 0.
   */
  shares: Float64Array;
  shareCount: number;
  members: Int32Array;
}

/**
 * What the weights of each row look like, summed up by the softmax itself. With s_j the final scores of the n visible
 * keys, p_j = exp(s_j) / sum exp(s), and P the same with a sink logit in the sum, before dropout:
 *   entropy      H / ln n, H = -sum p ln p; 0 where n <= 1
 *   sink mass    sum of P_j over positions j < sinkTokens, and the sink logit's own share
 *   recent mass  sum of P_j over positions j > p - recentTokens, p the row's own
 *   max logit    max s_j, -Infinity where n = 0
 *   visible      n
 */
export interface StatisticsArgs {
  /** In this order, a plane [rows] each; those of the call, [batch, queryTokens, heads], begin at firstRow. */
  data: Float32Array;
  rows: number;
  firstRow: number;
  sinkTokens: number;
  recentTokens: number;
}

/** Planes of StatisticsArgs. */
export const enum Statistic {
  entropy,
  sinkMass,
  recentMass,
  maxLogit,
  visible,
  count,
}

/** As AttendArgs, for several sequences: q [tokens, heads, headDim], out [tokens, heads, valueDim], lse [tokens, heads]. */
export interface AttendStepArgs {
  q: FloatData;
  sinkQ: FloatData | null;
  qDtype: FloatDType;
  out: FloatData;
  outDtype: FloatDType;
  lse: Float32Array | null;
  /** Rows of q. */
  tokens: number;
  heads: number;
  kvHeads: number;
  headDim: number;
  valueDim: number;
  arena: Arena;
  tailArena: Arena | null;
  plan: StepPlan;
  window: number;
  sinkTokens: number;
  scale: number;
  softcap: number;
  alibiSlopes: Float32Array | null;
  sinkLogits: Float32Array | null;
  precision: Precision;
  /** Its rows are [tokens, heads]. */
  stats: StatisticsArgs | null;
}
