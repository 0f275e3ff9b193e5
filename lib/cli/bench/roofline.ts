/**
 * How far a measured time is from what the machine can do. Work is counted as the algorithm needs it, whatever the
 * layout really moves: each K and V element is read once, two FLOP a multiply-add.
 *
 *   r = max(bytes / read limit, FLOP / peak) / time
 *
 * The peak is the f32 FMA peak, for quantised storage four times it: the rate of 8-bit dot products.
 */
import type { Precision } from '../../core/precision';
import { isBlockDType, type FloatDType, type WeightDType } from '../../core/dtype';
import type { HeadShape, MatrixShape } from '../options';

/** What keys and values may be held in. */
export type StoredDType = FloatDType | 'q8' | 'q4';

/** Bits of a value that count, scales included, whatever a layout takes. */
export const VALUE_BITS: Readonly<Record<StoredDType | WeightDType, number>> = {
  f32: 32,
  f16: 16,
  bf16: 16,
  q8: 8.5,
  q4: 4.5,
  q8_0: 8.5,
  q4_0: 4.5,
  q4_1: 5,
};

/** 8-bit dot products do four multiply-adds where FMA does one. */
const INT8_RATE = 4;

export interface Work {
  bytes: number;
  flop: number;
  /** The arithmetic peak that counts, in f32 FMA peaks. */
  peak: number;
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

export function isQuantised(dtype: StoredDType): dtype is 'q8' | 'q4' {
  return dtype === 'q8' || dtype === 'q4';
}

function peakOf(dtype: StoredDType): number {
  return isQuantised(dtype) ? INT8_RATE : 1;
}

/** One query token over `context` cached tokens: scores and weighted sum are D multiply-adds a key each. */
export function decodeWork(shape: HeadShape, context: number, dtype: StoredDType): Work {
  return {
    bytes: (2 * shape.kvHeads * shape.headDim * context * VALUE_BITS[dtype]) / 8,
    flop: 4 * shape.heads * shape.headDim * context,
    peak: peakOf(dtype),
  };
}

/** `tokens` queries over as many keys, causal: only visible pairs count, and arithmetic alone. */
export function prefillWork(shape: HeadShape, tokens: number, dtype: StoredDType): Work {
  const visiblePairs = (tokens * (tokens + 1)) / 2;
  return {
    bytes: 0,
    flop: 4 * shape.heads * shape.headDim * visiblePairs,
    peak: peakOf(dtype),
  };
}

export interface LinearShape {
  shape: MatrixShape;
  /** Rows of x. */
  tokens: number;
  dtype: WeightDType;
  precision: Precision;
}

/** y = x W^T for `tokens` rows of x; the weights are read once. */
export function linearWork({ shape, tokens, dtype, precision }: LinearShape): Work {
  return {
    bytes: (shape.rows * shape.columns * VALUE_BITS[dtype]) / 8,
    flop: 2 * shape.rows * shape.columns * tokens,
    peak: precision === 'fast' && isBlockDType(dtype) ? INT8_RATE : 1,
  };
}

/** Rates work done in `seconds` against the limits. */
export function rate(work: Work, limits: MachineLimits, seconds: number): Rating {
  const readSeconds = work.bytes / limits.read;
  const fmaSeconds = work.flop / (limits.fma * work.peak);
  return {
    roofline: Math.max(readSeconds, fmaSeconds) / seconds,
    bound: readSeconds >= fmaSeconds ? 'read' : 'fma',
    gigabytes: work.bytes / seconds / 1e9,
    gigaflops: work.flop / seconds / 1e9,
  };
}
