/** What fits: sequences in a memory, contexts in a memory, and a sequence's cache in the processors' caches. */
import { GqaError } from '../../core/errors';
import type { CacheLevel } from '../machine';
import { cacheFootprint } from '../../kv-cache/footprint';
import { cacheOptions, type KvDType, type KvLoad } from './kv-bytes';
import { layerKinds, type ModelShape } from './shape';

/** No cache has more tokens per sequence: beyond any model, and sizes stay exact. */
export const MAX_CONTEXT = 2 ** 31 - 1;

export interface Fit {
  /** Whether weights and the batch fit. */
  fits: boolean;
  /** Sequences of the context that fit beside the weights. */
  sequences: number;
  /** Longest context at which the batch fits; 0 where not even one token does. */
  longestContext: number;
}

/** Bytes that the batch's KvCache would allocate; Infinity where no cache can. */
function batchBytes(shape: ModelShape, dtype: KvDType, load: KvLoad): number {
  const { kinds, counts } = layerKinds(shape);
  try {
    const { layers } = cacheFootprint(cacheOptions(kinds, dtype, load));
    return layers.reduce(
      (sum, layer, i) => sum + counts[i] * (layer.blockBytes + layer.tailBytes),
      0,
    );
  } catch (error) {
    if (error instanceof GqaError && error.code === 'OUT_OF_RANGE') return Infinity;
    throw error;
  }
}

/** The largest n in [0, most] for which `holds` is true, where it is true up to some n and false from there on. */
export function largest(most: number, holds: (n: number) => boolean): number {
  let [low, high] = [0, most];
  while (low < high) {
    const middle = low + Math.ceil((high - low) / 2);
    if (holds(middle)) low = middle;
    else high = middle - 1;
  }
  return low;
}

/** @param memory bytes for weights and cache together */
export function fitIn(
  shape: ModelShape,
  dtype: KvDType,
  load: KvLoad,
  weightBytes: number,
  memory: number,
): Fit {
  const left = memory - weightBytes;
  const bytes = (change: Partial<KvLoad>): number =>
    batchBytes(shape, dtype, { ...load, ...change });
  const fits = bytes({}) <= left;
  // A prefix of several sequences takes blocks of its own; without one bytes are proportional to sequences.
  const one = bytes({ batch: 1 });
  const most = Math.max(0, Math.floor(left / one));
  const sequences =
    load.sharedPrefix === 0 ? most : largest(most, (batch) => bytes({ batch }) <= left);
  const longestContext = largest(MAX_CONTEXT, (context) => bytes({ context }) <= left);
  return { fits, sequences, longestContext };
}

export interface CacheExit {
  level: number;
  /** All caches of this level together. */
  bytes: number;
  /** First context at which the keys and values of a whole sequence do not fit; Infinity where windows keep them within. */
  sequence: number;
  /** The same of the layer with the most: layers are read one after the other. */
  layer: number;
}

/** Where a sequence's cache outgrows the processors' caches, from the second level on: what the first holds is a tile's affair. */
export function cacheExits(
  shape: ModelShape,
  dtype: KvDType,
  levels: readonly CacheLevel[],
): CacheExit[] {
  const { layers } = cacheFootprint(
    cacheOptions(shape, dtype, { context: 1, batch: 1, sharedPrefix: 0 }),
  );
  const layerBytes = (tokens: number): number[] =>
    layers.map(({ bytesPerToken }, i) => bytesPerToken * Math.min(tokens, shape.layerWindows[i]));
  const first = (size: number, bytes: (all: number[]) => number): number => {
    const last = largest(MAX_CONTEXT, (tokens) => bytes(layerBytes(tokens)) <= size);
    return last === MAX_CONTEXT ? Infinity : last + 1;
  };
  return levels
    .filter(({ level }) => level > 1)
    .map(({ level, bytes }) => ({
      ...{ level, bytes },
      sequence: first(bytes, (all) => all.reduce((a, b) => a + b, 0)),
      layer: first(bytes, (all) => Math.max(...all)),
    }));
}
