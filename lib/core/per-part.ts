/** Settings of a cache that hold for keys and values both, or for each apart. */
import { CACHE_DTYPES, isCacheDType } from './dtype';
import type { CacheDType } from './dtype';
import { expectedError } from './errors';
import { describe } from './validate';

/** One setting for both, or one for keys and one for values. */
export type PerPart<T> = T | { k: T; v: T };

/** Both settings, each checked by `require` under the name of its own. */
export function requirePerPart<T>(
  value: unknown,
  argument: string,
  require: (value: unknown, argument: string) => T,
): { k: T; v: T } {
  if (typeof value !== 'object' || value === null) {
    const both = require(value, argument);
    return { k: both, v: both };
  }
  const { k, v } = value as { k?: unknown; v?: unknown };
  return { k: require(k, `${argument}.k`), v: require(v, `${argument}.v`) };
}

/** @throws GqaError INVALID_DTYPE */
export function requireCacheDType(value: unknown, argument: string): CacheDType {
  if (isCacheDType(value)) return value;
  const expected = `one of ${CACHE_DTYPES.join(', ')}`;
  throw expectedError('INVALID_DTYPE', argument, expected, describe(value));
}
