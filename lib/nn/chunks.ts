/** How many tokens may be appended and attended over at once. */
import type { KvSequence } from '../kv-cache/kv-cache';

/**
 * The longest chunk whose every row still finds its keys after the whole chunk was appended; at least 1, unless a cache
 * without a window is full. The first row of T tokens from position n needs n - window + 1 and on. What is held begins at
 * n + T - (capacity - sinkTokens) once that many tokens do not fit, so T <= capacity - sinkTokens - window + 1.
 */
export function longestChunk(sequence: KvSequence): number {
  const { capacity, sinkTokens, window } = sequence.cache;
  return Math.max(capacity - sequence.length, capacity - sinkTokens - window + 1);
}
