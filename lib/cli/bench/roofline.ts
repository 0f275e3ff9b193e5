/**
 * How far a measured time is from what the machine can do. Work is counted as the algorithm needs it, whatever the
 * layout really moves: each K and V element is read once, two FLOP a multiply-add.
 *
 *   r = max(bytes / read limit, FLOP / peak) / time
 *
 * The peak of attention is the f32 FMA peak, for quantised storage four times it: the rate of 8-bit dot products. That
 * of linear layers whose activations may be rounded is the measured one of what then multiplies them.
 */
import type { Precision } from '../../core/precision';
import { isBlockDType, type FloatDType, type WeightDType, type CacheDType } from '../../core/dtype';
import type { HeadShape, MatrixShape } from '../options';

/** Bits of a value that count, scales included, whatever a layout takes. */
export const VALUE_BITS: Readonly<Record<CacheDType | WeightDType, number>> = {
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

/** f32 multiply-adds; four times their rate; bf16 products by tiles or dot products; 8-bit dot products. */
export type Peak = 'fma' | 'quantised' | 'bf16' | 'int8';

export interface Work {
  bytes: number;
  flop: number;
  /** The arithmetic peak that counts. */
  peak: Peak;
}

/** Measured in the same run with the same thread count; bytes and FLOP a second, 0 where the machine has no such. */
export interface MachineLimits {
  read: number;
  fma: number;
  /** Dot products of bf16 pairs, and of bytes. */
  bf16: number;
  int8: number;
  /** AMX tiles of bf16. */
  tiles: number;
}

/** Of bf16 products, in the fastest form that this machine has. */
export function bf16Peak({ tiles, bf16, fma }: MachineLimits): number {
  return tiles || bf16 || fma;
}

function peakRate(limits: MachineLimits, peak: Peak): number {
  switch (peak) {
    case 'fma':
      return limits.fma;
    case 'quantised':
      return limits.fma * INT8_RATE;
    case 'bf16':
      return bf16Peak(limits);
    case 'int8':
      return limits.int8 || limits.fma;
  }
}

export interface Rating {
  /** Share of the roofline, 0..1. */
  roofline: number;
  /** Which of the two limits is the higher. */
  bound: 'read' | 'arithmetic';
  /** The arithmetic peak that counted, GFLOP/s. */
  peakGigaflops: number;
  gigabytes: number;
  gigaflops: number;
}

export function isQuantised(dtype: CacheDType): dtype is 'q8' | 'q4' {
  return dtype === 'q8' || dtype === 'q4';
}

/** What keys and values are given in before they are stored. */
export function inputDType(dtype: CacheDType): FloatDType {
  return isQuantised(dtype) ? 'f32' : dtype;
}

function peakOf(dtype: CacheDType): Peak {
  return isQuantised(dtype) ? 'quantised' : 'fma';
}

/** One query token over `context` cached tokens: scores and weighted sum are D multiply-adds a key each. */
export function decodeWork(shape: HeadShape, context: number, dtype: CacheDType): Work {
  return {
    bytes: (2 * shape.kvHeads * shape.headDim * context * VALUE_BITS[dtype]) / 8,
    flop: 4 * shape.heads * shape.headDim * context,
    peak: peakOf(dtype),
  };
}

/** `tokens` queries over as many keys, causal: only visible pairs count, and arithmetic alone. */
export function prefillWork(shape: HeadShape, tokens: number, dtype: CacheDType): Work {
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
    peak:
      precision === 'exact'
        ? 'fma'
        : isBlockDType(dtype)
          ? 'int8'
          : dtype === 'bf16'
            ? 'bf16'
            : 'fma',
  };
}

/** Rates work done in `seconds` against the limits. */
export function rate(work: Work, limits: MachineLimits, seconds: number): Rating {
  const readSeconds = work.bytes / limits.read;
  const peak = peakRate(limits, work.peak);
  const arithmeticSeconds = work.flop / peak;
  return {
    roofline: Math.max(readSeconds, arithmeticSeconds) / seconds,
    bound: readSeconds >= arithmeticSeconds ? 'read' : 'arithmetic',
    peakGigaflops: peak / 1e9,
    gigabytes: work.bytes / seconds / 1e9,
    gigaflops: work.flop / seconds / 1e9,
  };
}
