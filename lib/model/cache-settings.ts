/** How a model keeps keys and values: what callers may ask for, checked once, and the cache that a run needs then. */
import { blocksOf } from '../core/dtype';
import type { CacheDType } from '../core/dtype';
import { expectedError } from '../core/errors';
import { requireCacheDType, requirePerPart } from '../core/per-part';
import type { PerPart } from '../core/per-part';
import type { Precision } from '../core/precision';
import { describe, requireBoolean, requireInteger, requireOptions } from '../core/validate';

export interface KvCacheSettings {
  /** How keys and values are stored; default 'f32', with precision 'fast' 'bf16'. */
  dtype?: PerPart<CacheDType>;
  /**
   * Whether keys and values are turned by a Hadamard rotation before they are stored, which spreads outliers over all
   * dims; default: those stored as 'q4'.
   */
  rotate?: PerPart<boolean>;
  /** Newest tokens, rounded up to blocks of 64, that are read in full precision beside quantised ones; default 0. */
  recent?: number;
  /** Tokens see this many keys, themselves included, and generation never fills the context; default: no window. */
  window?: number;
  /** First positions that stay visible beside the window; default 0. */
  sinkTokens?: number;
  /**
   * What a token's rotary position counts: 'absolute', the default, the tokens of the text, or 'cache' those that are
   * still visible, so that a windowed text may go on for ever (StreamingLLM).
   */
  positions?: 'absolute' | 'cache';
}

/**
 * A copy that was checked, its dtype filled in. What only a cache can judge, it does when it is made.
 *
 * @throws GqaError INVALID_ARGUMENT, INVALID_DTYPE, OUT_OF_RANGE, NON_FINITE
 */
export function checkCacheSettings(
  options: KvCacheSettings,
  precision: Precision,
  argument: string,
): KvCacheSettings {
  requireOptions(options, argument);
  const { dtype = precision === 'fast' ? 'bf16' : 'f32', rotate, positions = 'absolute' } = options;
  const count = (name: 'recent' | 'window' | 'sinkTokens', least: number): number | undefined => {
    const value = options[name];
    return value === undefined ? value : requireInteger(value, `${argument}.${name}`, least);
  };
  if (positions !== 'absolute' && positions !== 'cache') {
    const expected = "'absolute' or 'cache'";
    throw expectedError('INVALID_ARGUMENT', `${argument}.positions`, expected, describe(positions));
  }
  const dtypes = requirePerPart(dtype, `${argument}.dtype`, requireCacheDType);
  const recent = count('recent', 0);
  if (recent !== undefined && recent > 0 && !isQuantised(dtypes)) {
    const expected = 'none, or keys or values of dtype q8 or q4';
    throw expectedError('INVALID_ARGUMENT', `${argument}.recent`, expected, describe(recent));
  }
  return {
    dtype: dtypes,
    rotate:
      rotate === undefined ? rotate : requirePerPart(rotate, `${argument}.rotate`, requireBoolean),
    recent,
    window: count('window', 1),
    sinkTokens: count('sinkTokens', 0),
    positions,
  };
}

export function isQuantised({ k, v }: { k: CacheDType; v: CacheDType }): boolean {
  return blocksOf(k) !== null || blocksOf(v) !== null;
}

/** Caches grow by whole multiples of this many tokens. */
const CACHE_STEP = 256;

/** Tokens that a cache must hold for a text of so many. */
export function cacheCapacity(
  { window, sinkTokens = 0 }: KvCacheSettings,
  tokens: number,
  contextLength: number,
): number {
  if (window !== undefined) return sinkTokens + window;
  return Math.min(contextLength, Math.ceil(tokens / CACHE_STEP) * CACHE_STEP);
}
