/**
 * What of a sequence must be kept to have it again: a few numbers, and the blocks that follow from them. Snapshots write
 * both down.
 */
import { expectedError } from '../core/errors';
import { requireInteger } from '../core/validate';
import { makeRoom } from './demand';
import { mainEnd, startAfter } from './geometry';
import type { RingGeometry } from './geometry';
import type { KvCache } from './kv-cache';
import type { KvSequence } from './sequence';

/** Of one layer group; see BlockRing.peak, and KvLayer for the tail. */
export interface RingImage {
  peak: number;
  tailFrom: number;
  floatSinks: number;
}

export interface SequenceImage {
  length: number;
  groups: readonly RingImage[];
}

/** A block that holds tokens of a sequence, in every layer of a group. */
export interface HeldBlock {
  group: number;
  /** Of the tail's arenas, or of the main ones. */
  tail: boolean;
  ordinal: number;
  /** Leading slots that hold a token. */
  tokens: number;
}

/** @throws GqaError LAYERS_UNEVEN (in the middle of a step) */
export function imageOf(sequence: KvSequence): SequenceImage {
  sequence.checkWhole();
  const { length, rings, layers } = sequence;
  const groups = rings.map((ring): RingImage => {
    // Layers of a group can differ after a step that was dropped half way: what all of them hold.
    const members = layers.filter((layer) => layer.ring === ring);
    const [{ tailSinkOrdinals: floatSinks }] = members;
    const tailFrom = Math.max(...members.map((layer) => layer.oldestTailOrdinal));
    return { peak: ring.peak, tailFrom, floatSinks };
  });
  return { length, groups };
}

/** Whether a sequence of this cache could have such an image. @throws GqaError OUT_OF_RANGE, INVALID_ARGUMENT, NON_FINITE */
export function checkImage(cache: KvCache, image: SequenceImage): void {
  const length = requireInteger(image.length, 'length', 0);
  requireInteger(image.groups.length, 'groups.length', cache.groups.length, cache.groups.length);
  cache.groups.forEach(({ geometry }, i) => {
    const { peak, tailFrom, floatSinks } = image.groups[i];
    const { capacity, window, slack, tail, blockTokens } = geometry;
    requireInteger(peak, 'peak', length, window === Infinity ? capacity : undefined);
    if (startAfter(geometry, peak) > 0) requireInteger(length, 'length', peak - slack);
    const sinks = tail?.sinkBlocks ?? 0;
    if (floatSinks !== 0 && floatSinks !== sinks) {
      throw expectedError('OUT_OF_RANGE', 'floatSinks', `0 or ${sinks}`, String(floatSinks));
    }
    const newest = Math.floor(length / blockTokens);
    const oldest = tail === null ? 0 : Math.ceil(length / blockTokens) - tail.ringBlocks;
    requireInteger(tailFrom, 'tailFrom', Math.max(0, oldest), tail === null ? 0 : newest);
  });
}

/** The blocks that hold what an image says, in a fixed order. */
export function heldBlocks(cache: KvCache, { length, groups }: SequenceImage): HeldBlock[] {
  return cache.groups.flatMap(({ geometry }, group) => {
    const { blockTokens, tail } = geometry;
    const block = (ordinal: number, ofTail: boolean): HeldBlock => {
      const tokens = Math.min(blockTokens, length - ordinal * blockTokens);
      return { group, tail: ofTail, ordinal, tokens };
    };
    const main = mainOrdinals(geometry, groups[group].peak, length).map((o) => block(o, false));
    if (tail === null) return main;
    const { tailFrom, floatSinks } = groups[group];
    const end = Math.ceil(length / blockTokens);
    const first = range(0, Math.min(floatSinks, end));
    const newest = range(Math.max(tailFrom, floatSinks), end);
    return [...main, ...[...first, ...newest].map((o) => block(o, true))];
  });
}

/** Sinks and the run from the oldest position held; in a quantised cache whole blocks only. */
function mainOrdinals(geometry: RingGeometry, peak: number, length: number): number[] {
  const { blockTokens, sinkBlocks } = geometry;
  const end = mainEnd(geometry, length);
  const oldest = Math.floor(startAfter(geometry, peak) / blockTokens);
  const sinks = range(0, Math.min(sinkBlocks, oldest, end));
  return [...sinks, ...range(oldest, end)];
}

function range(from: number, to: number): number[] {
  return Array.from({ length: Math.max(0, to - from) }, (_, i) => from + i);
}

/** The block's id in the arenas of its group. */
export function blockIdOf(sequence: KvSequence, { group, tail, ordinal }: HeldBlock): number {
  const ring = sequence.rings[group];
  return (tail ? ring.tail! : ring.main).idOf(ordinal);
}

/**
 * Gives a new sequence blocks of its own for `blocks`, whose contents are the caller's to write.
 *
 * @throws GqaError CAPACITY_EXCEEDED where a budget has not as many
 */
export function assignBlocks(sequence: KvSequence, blocks: readonly HeldBlock[]): void {
  const { cache } = sequence;
  const demand = cache.groups.map(() => 0);
  for (const { group, tail } of blocks) if (!tail) demand[group]++;
  makeRoom(cache, demand, 'cache');
  for (const { group, tail, ordinal } of blocks) {
    const ring = sequence.rings[group];
    (tail ? ring.tail! : ring.main).writable(ordinal);
  }
}

/** The new sequence's blocks have been written: it has its tokens from here on. */
export function setImage(sequence: KvSequence, { length, groups }: SequenceImage): void {
  groups.forEach(({ peak, tailFrom, floatSinks }, group) => {
    const ring = sequence.rings[group];
    ring.peak = peak;
    for (const layer of sequence.layers) {
      if (layer.ring === ring) layer.setTail(tailFrom, floatSinks);
    }
  });
  sequence.count.reset(length);
}
