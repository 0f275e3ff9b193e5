/**
 * Blocks for what is about to be written. A cache without a budget always has them; in one with a budget it is found out
 * here, before anything is written, and shared prefixes make room.
 */
import { expectedError } from '../core/errors';
import { forEachWritten } from './held-runs';
import type { KvCache } from './kv-cache';
import type { PrefixNode } from './prefixes';
import { UNASSIGNED } from './ring';
import type { KvSequence } from './sequence';

/** Tokens that a sequence is about to write, `tokens` from `position` on. */
export interface Growth {
  sequence: KvSequence;
  position: number;
  tokens: number;
}

/**
 * Blocks that these growths take from the pool of each group: those of empty slots, and copies of what others hold too.
 * Of the holders of one block that all write it, the last needs no copy.
 */
function demandOf(cache: KvCache, growths: readonly Growth[]): number[] {
  return cache.groups.map(({ pool }, group) => {
    let demand = 0;
    const writers = new Map<number, number>();
    for (const { sequence, position, tokens } of growths) {
      const ring = sequence.rings[group];
      forEachWritten(ring, position, tokens, (ordinal) => {
        const id = ring.main.idOf(ordinal);
        if (id === UNASSIGNED) demand++;
        else if (pool.isShared(id)) writers.set(id, (writers.get(id) ?? 0) + 1);
      });
    }
    for (const [id, count] of writers) demand += count - (pool.holdersOf(id) === count ? 1 : 0);
    return demand;
  });
}

/** Blocks of each group that are free once prefixes have made room, all but those of `kept`. */
export function availableBlocks(cache: KvCache, kept?: ReadonlySet<PrefixNode>): number[] {
  const evictable = cache.prefixes.evictable(kept);
  return cache.groups.map(({ pool }, group) => pool.available + evictable[group]);
}

/** Tokens for which every group has blocks, those of prefixes that nobody else holds among them. */
export function freeTokens(cache: KvCache): number {
  return Math.min(...availableBlocks(cache)) * cache.blockTokens;
}

/** More than these growths can need, in any group. */
function mostBlocks(cache: KvCache, growths: readonly Growth[]): number {
  return growths.reduce((sum, { tokens }) => sum + Math.floor(tokens / cache.blockTokens) + 2, 0);
}

function isAmple(cache: KvCache, blocks: number): boolean {
  return cache.groups.every(({ pool }) => pool.available >= blocks);
}

/** That there are blocks for these growths, once prefixes have made room. @throws GqaError CAPACITY_EXCEEDED */
export function checkBlocks(cache: KvCache, growths: readonly Growth[], argument: string): void {
  if (!isAmple(cache, mostBlocks(cache, growths))) {
    checkDemand(cache, demandOf(cache, growths), argument);
  }
}

function checkDemand(cache: KvCache, demand: readonly number[], argument: string): void {
  if (cache.groups.every(({ pool }, group) => pool.available >= demand[group])) return;
  const available = availableBlocks(cache);
  const group = demand.findIndex((blocks, i) => blocks > available[i]);
  if (group < 0) return;
  const expected = `tokens for ${available[group]} free blocks of ${cache.blockTokens}`;
  throw expectedError('CAPACITY_EXCEEDED', argument, expected, `some for ${demand[group]}`);
}

/** So many free blocks in each group, or nothing has changed. @throws GqaError CAPACITY_EXCEEDED */
export function makeRoom(cache: KvCache, demand: readonly number[], argument: string): void {
  checkDemand(cache, demand, argument);
  const short = demand.map((blocks, group) => blocks - cache.groups[group].pool.available);
  if (short.some((blocks) => blocks > 0)) cache.prefixes.evictFor(short);
}

/**
 * Gives the sequences all blocks that these growths write, in every group, so that no other can take them before the last
 * layer has written. What they hold stays what it is.
 *
 * @throws GqaError CAPACITY_EXCEEDED; no sequence has changed then
 */
export function reserve(cache: KvCache, growths: readonly Growth[], argument: string): void {
  if (!isAmple(cache, mostBlocks(cache, growths))) {
    makeRoom(cache, demandOf(cache, growths), argument);
  }
  for (const { sequence, position, tokens } of growths) {
    for (const ring of sequence.rings) {
      forEachWritten(ring, position, tokens, (ordinal) => ring.main.writable(ordinal));
    }
  }
}
