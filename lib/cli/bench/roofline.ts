/**
 * How far a measured time is from what the machine can do. Work is counted as the algorithm needs it, whatever the
 * layout really moves: each K and V element is read once, two FLOP a multiply-add.
 *
 *   r = max(bytes / read limit, FLOP / FMA peak) / time
 */
import type { HeadShape, MatrixShape } from '../options';

export interface Work {
  bytes: number;
  flop: number;
}

/** Measured in the same run with the same thread count; bytes and FLOP a second. */
export interface MachineLimits {
  read: number;
  fma: number;
}

export interface Rating {
  /** Share of the roofline, 0..1. */
  roofline: number;
  /** Which of the two limits is the higher. */
  bound: 'read' | 'fma';
  gigabytes: number;
  gigaflops: number;
}

/** One query token over `context` cached tokens: scores and weighted sum are D multiply-adds a key each. */
export function decodeWork(shape: HeadShape, context: number, elementBytes: number): Work {
  return {
    bytes: 2 * shape.kvHeads * shape.headDim * context * elementBytes,
    flop: 4 * shape.heads * shape.headDim * context,
  };
}

/** `tokens` queries over as many keys, causal: only visible pairs count, and arithmetic alone. */
export function prefillWork(shape: HeadShape, tokens: number): Work {
  const visiblePairs = (tokens * (tokens + 1)) / 2;
  return { bytes: 0, flop: 4 * shape.heads * shape.headDim * visiblePairs };
}

/** y = x W^T for `tokens` rows of x; the weights are read once. */
export function linearWork(shape: MatrixShape, tokens: number, elementBytes: number): Work {
  return {
    bytes: shape.rows * shape.columns * elementBytes,
    flop: 2 * shape.rows * shape.columns * tokens,
  };
}

/** Rates work done in `seconds` against the limits. */
export function rate(work: Work, limits: MachineLimits, seconds: number): Rating {
  const readSeconds = work.bytes / limits.read;
  const fmaSeconds = work.flop / limits.fma;
  return {
    roofline: Math.max(readSeconds, fmaSeconds) / seconds,
    bound: readSeconds >= fmaSeconds ? 'read' : 'fma',
    gigabytes: work.bytes / seconds / 1e9,
    gigaflops: work.flop / seconds / 1e9,
  };
}
