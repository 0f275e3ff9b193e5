/** Blocks of shared prefixes out of a cache's tree, and into it. */
import { isUint8Array } from 'node:util/types';
import { expectedError } from '../../core/errors';
import { describe, requireInteger } from '../../core/validate';
import { availableBlocks } from '../demand';
import type { KvCache } from '../kv-cache';
import { requireTokens } from '../prefixes';
import { decodeBlock, encodeBlock, prefixDigests, writeNumbers } from './prefix-blocks';

/** See KvCache.exportPrefix. */
export function exportBlocks(
  cache: KvCache,
  tokens: ArrayLike<number>,
  fromBlock: number,
  toBlock: number,
): Uint8Array[] {
  const { prefixes, blockTokens } = cache;
  requireTokens(tokens);
  requireInteger(fromBlock, 'fromBlock', 0);
  const shared = prefixes.sharedTokens(tokens) / blockTokens;
  requireInteger(toBlock, 'toBlock', fromBlock, Math.max(fromBlock, shared));
  if (toBlock > shared) {
    const expected = `at most ${shared}, the blocks that are shared,`;
    throw expectedError('OUT_OF_RANGE', 'toBlock', expected, String(toBlock));
  }
  const digests = prefixDigests(tokens, blockTokens, toBlock);
  const path = prefixes.walk(tokens, toBlock);
  return path.slice(fromBlock).map(({ ids }, i) => encodeBlock(cache, ids, digests[fromBlock + i]));
}

/** See KvCache.importPrefix. */
export function importBlocks(
  cache: KvCache,
  tokens: ArrayLike<number>,
  firstBlock: number,
  blocks: readonly Uint8Array[],
): number {
  const { prefixes, blockTokens } = cache;
  const end = checkBlocks(cache, tokens, firstBlock, blocks);
  const digests = prefixDigests(tokens, blockTokens, end);
  const numbers = blocks.map((bytes, i) =>
    decodeBlock(cache, bytes, digests[firstBlock + i], `blocks[${i}]`),
  );
  const path = prefixes.walk(tokens, end);
  if (path.length >= firstBlock) {
    const kept = new Set(path);
    const room = Math.min(...availableBlocks(cache, kept), prefixes.budget - path.length);
    const added = Math.min(end - path.length, room);
    prefixes.makeRoomFor(added);
    prefixes.evictFor(
      cache.groups.map(({ pool }) => added - pool.available),
      kept,
    );
    for (let i = 0; i < added; i++) {
      const ids = cache.groups.map(({ pool }) => pool.take());
      writeNumbers(cache, ids, numbers[path.length - firstBlock]);
      prefixes.add(path, tokens, ids);
    }
    prefixes.touch(path);
  }
  return path.length * blockTokens;
}

/** The block after the last. @throws GqaError INVALID_ARGUMENT, OUT_OF_RANGE */
function checkBlocks(
  cache: KvCache,
  tokens: ArrayLike<number>,
  firstBlock: number,
  blocks: readonly Uint8Array[],
): number {
  const count = requireTokens(tokens);
  requireInteger(firstBlock, 'firstBlock', 0);
  if (!Array.isArray(blocks) || !blocks.every((bytes) => isUint8Array(bytes))) {
    throw expectedError('INVALID_ARGUMENT', 'blocks', 'an array of Uint8Array', describe(blocks));
  }
  // A sequence that begins with a prefix holds all of it.
  const capacity = Math.min(...cache.groups.map(({ geometry }) => geometry.capacity));
  const most = Math.floor(Math.min(count, capacity) / cache.blockTokens);
  const end = firstBlock + blocks.length;
  if (end > most) {
    const expected = `blocks up to ${most}, those of the tokens that a sequence can hold,`;
    throw expectedError('OUT_OF_RANGE', 'blocks', expected, `some up to ${end}`);
  }
  return end;
}
