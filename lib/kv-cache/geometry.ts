/**
 * How many blocks a sequence needs in the layers that share a shape of memory, and which tokens they hold. Pure
 * arithmetic, apart from the storage.
 *
 * Held are the sink tokens [0, sinkTokens) and the run [start, length). Once a sequence has outgrown the capacity,
 * start = peak - keep, where peak is the largest length reached and keep = capacity - sinkTokens; before, start = 0.
 * Ordinal o is the block of positions [o * blockTokens, (o + 1) * blockTokens). Ordinals below sinkBlocks have a slot of
 * their own; the others take turns on ringBlocks slots. The newest `keep` positions touch at most
 * ceil((keep - 1) / blockTokens) + 1 <= ringBlocks consecutive ordinals, so no two of them share a slot.
 */

/** Slots of a table of blocks; see BlockTable. */
export interface RingSlots {
  sinkBlocks: number;
  ringBlocks: number;
}

export interface RingGeometry extends RingSlots {
  capacity: number;
  /** Infinity for none; then nothing is ever evicted. */
  window: number;
  sinkTokens: number;
  /** Tokens that can be rolled back after something was evicted. */
  slack: number;
  /** Newest tokens held, whatever the sinks. */
  keep: number;
  blockTokens: number;
  /** Blocks of floats beside quantised ones; null in a cache of floats. */
  tail: TailGeometry | null;
}

/** The newest tokens, and perhaps the sinks, of a quantised cache in floats. */
export interface TailGeometry extends RingSlots {
  /** Newest tokens that are read in floats, rounded up to whole blocks. */
  recent: number;
}

/** Token slots of a block at most, and what their number is a multiple of: see ArenaLayout. */
export const MAX_BLOCK_TOKENS = 64;
const BLOCK_TOKENS_STEP = 16;
/** Blocks of a tail besides the recent ones: the unfinished one, and the one before it for short rollbacks. */
const TAIL_BLOCKS = 2;

export interface RingShape {
  capacity: number;
  window: number;
  sinkTokens: number;
  slack: number;
  /** Whether keys or values are quantised. */
  quantised: boolean;
  recent: number;
}

/** Token slots of a block for caches of `capacity` tokens. */
export function blockTokensFor(capacity: number, quantised: boolean): number {
  const rounded = Math.ceil(capacity / BLOCK_TOKENS_STEP) * BLOCK_TOKENS_STEP;
  return quantised ? MAX_BLOCK_TOKENS : Math.min(MAX_BLOCK_TOKENS, rounded);
}

export function planRing(shape: RingShape, blockTokens: number): RingGeometry {
  const { capacity, window, sinkTokens, slack, quantised, recent } = shape;
  const windowed = window !== Infinity;
  const keep = windowed ? capacity - sinkTokens : capacity;
  const blocksOf = (tokens: number): number => Math.ceil(tokens / blockTokens);
  const sinkBlocks = windowed ? blocksOf(sinkTokens) : 0;
  const ringBlocks = blocksOf(keep) + (windowed ? 1 : 0);
  const tail = {
    recent,
    sinkBlocks: recent > 0 ? blocksOf(sinkTokens) : 0,
    ringBlocks: blocksOf(recent) + TAIL_BLOCKS,
  };
  const held = { capacity, window, sinkTokens, slack, keep, blockTokens };
  return { ...held, sinkBlocks, ringBlocks, tail: quantised ? tail : null };
}

/** Oldest position of the recent run that is held once a sequence has reached `peak` tokens. */
export function startAfter(geometry: RingGeometry, peak: number): number {
  const { window, capacity, keep } = geometry;
  return window !== Infinity && peak > capacity ? peak - keep : 0;
}

/**
 * The longest chunk whose every row still finds its keys after the whole chunk was appended to a sequence of `length`
 * tokens; at least 1, unless a cache without a window is full. The first row of T tokens from position n needs
 * n - window + 1 and on. What is held begins at n + T - keep once that many tokens do not fit, so
 * T <= keep - window + 1.
 */
export function longestChunk(geometry: RingGeometry, length: number): number {
  const { capacity, keep, window } = geometry;
  return Math.max(capacity - length, keep - window + 1);
}

/** Slot of the block of an ordinal. */
export function slotOf({ sinkBlocks, ringBlocks }: RingSlots, ordinal: number): number {
  return ordinal < sinkBlocks ? ordinal : sinkBlocks + ((ordinal - sinkBlocks) % ringBlocks);
}

/** The first ordinal whose block in the main arenas has nothing of the first `length` tokens: quantised ones are whole. */
export function mainEnd({ blockTokens, tail }: RingGeometry, length: number): number {
  return tail === null ? Math.ceil(length / blockTokens) : Math.floor(length / blockTokens);
}
