/**
 * A block of a shared prefix as bytes, for caches of other processes: what it is, which tokens it follows from, its numbers
 * in all layers, and a checksum (docs/snapshots.md).
 */
import { expectedError } from '../../core/errors';
import type { GqaError } from '../../core/errors';
import { allocate } from '../../core/validate';
import type { KvCache } from '../kv-cache';
import { blockBytes } from '../sizes';
import { fingerprintOf } from './cache-access';
import { DIGEST_BYTES, magic, sha256 } from './codec';
import { sameRopes } from './header';

const MAGIC = magic('B');
const FORMAT_VERSION = 1;
/** Magic, the version and the count of rope numbers as u32, little-endian. */
const PREFIX_BYTES = 16;
const HEAD_BYTES = PREFIX_BYTES + 2 * DIGEST_BYTES;

const layouts = new WeakMap<KvCache, Buffer>();

/** What caches must agree on, but for their rotations, which CPUs may round differently. */
export function layoutDigest(cache: KvCache): Buffer {
  let digest = layouts.get(cache);
  if (digest === undefined) {
    const { model, groups, layers } = fingerprintOf(cache);
    digest = sha256(Buffer.from(JSON.stringify({ model, groups, layers })));
    layouts.set(cache, digest);
  }
  return digest;
}

/** Of each of the first blocks of tokens, the SHA-256 of the one before it and its own token ids as float64. */
export function prefixDigests(
  tokens: ArrayLike<number>,
  blockTokens: number,
  blocks: number,
): Buffer[] {
  const digests: Buffer[] = [];
  const ids = Buffer.alloc(8 * blockTokens);
  let before: Buffer = Buffer.alloc(0);
  for (let block = 0; block < blocks; block++) {
    for (let i = 0; i < blockTokens; i++) ids.writeDoubleLE(tokens[block * blockTokens + i], 8 * i);
    before = sha256(before, ids);
    digests.push(before);
  }
  return digests;
}

/** Each layer's numbers of a block, one after another: calls visit with the layer's bytes. */
function eachLayer(
  cache: KvCache,
  ids: readonly number[],
  bytes: Uint8Array,
  visit: 'readBlock' | 'writeBlock',
): void {
  let at = 0;
  for (const { arena, group } of cache.storage) {
    const end = at + blockBytes(arena.layout);
    const id = ids[cache.groups.indexOf(group)];
    const tokens = arena.layout.blockTokens;
    cache.backend[visit]({ arena, id, bytes: bytes.subarray(at, end), tokens });
    at = end;
  }
}

function payloadBytes(cache: KvCache): number {
  return cache.storage.reduce((sum, { arena }) => sum + blockBytes(arena.layout), 0);
}

/** @param ids the block's in each layer group */
export function encodeBlock(
  cache: KvCache,
  ids: readonly number[],
  prefixDigest: Uint8Array,
): Uint8Array {
  const ropes = fingerprintOf(cache).ropes.flat();
  const from = HEAD_BYTES + 8 * ropes.length;
  const size = from + payloadBytes(cache) + DIGEST_BYTES;
  const bytes = allocate(() => Buffer.alloc(size), size, 'cache');
  MAGIC.copy(bytes);
  bytes.writeUInt32LE(FORMAT_VERSION, 8);
  bytes.writeUInt32LE(ropes.length, 12);
  bytes.set(layoutDigest(cache), PREFIX_BYTES);
  bytes.set(prefixDigest, PREFIX_BYTES + DIGEST_BYTES);
  ropes.forEach((value, i) => bytes.writeDoubleLE(value, HEAD_BYTES + 8 * i));
  eachLayer(cache, ids, bytes.subarray(from, size - DIGEST_BYTES), 'readBlock');
  bytes.set(sha256(bytes.subarray(0, size - DIGEST_BYTES)), size - DIGEST_BYTES);
  return bytes;
}

/**
 * The numbers of a block that was encoded for these tokens by a cache like this one.
 *
 * @throws GqaError INVALID_SNAPSHOT, SNAPSHOT_MISMATCH
 */
export function decodeBlock(
  cache: KvCache,
  given: Uint8Array,
  prefixDigest: Uint8Array,
  argument: string,
): Uint8Array {
  const bytes = Buffer.from(given.buffer, given.byteOffset, given.byteLength);
  const invalid = (expected: string, received: string): GqaError =>
    expectedError('INVALID_SNAPSHOT', argument, expected, received);
  if (bytes.length < HEAD_BYTES + DIGEST_BYTES || !bytes.subarray(0, 8).equals(MAGIC)) {
    throw invalid('a block of a prefix', `${bytes.length} other bytes`);
  }
  const version = bytes.readUInt32LE(8);
  if (version !== FORMAT_VERSION) throw invalid(`version ${FORMAT_VERSION}`, `version ${version}`);
  const end = bytes.length - DIGEST_BYTES;
  if (!sha256(bytes.subarray(0, end)).equals(bytes.subarray(end))) {
    throw invalid('bytes of their checksum', 'others');
  }
  const mismatch = (expected: string): GqaError =>
    expectedError('SNAPSHOT_MISMATCH', argument, expected, 'that of another');
  const [layout, prefix] = [PREFIX_BYTES, PREFIX_BYTES + DIGEST_BYTES];
  if (!bytes.subarray(layout, prefix).equals(layoutDigest(cache))) {
    throw mismatch("a block of this cache's model, layers, dtypes and windows");
  }
  if (!bytes.subarray(prefix, HEAD_BYTES).equals(prefixDigest)) {
    throw mismatch('the block that follows from these tokens');
  }
  const from = checkRopes(cache, bytes, argument);
  if (end - from === payloadBytes(cache)) return bytes.subarray(from, end);
  throw invalid(`${payloadBytes(cache)} bytes of numbers`, String(end - from));
}

/** Where the numbers begin. @throws GqaError SNAPSHOT_MISMATCH */
function checkRopes(cache: KvCache, bytes: Buffer, argument: string): number {
  const { ropes } = fingerprintOf(cache);
  const ours = ropes.flat();
  const count = bytes.readUInt32LE(12);
  if (count !== ours.length || HEAD_BYTES + 8 * count + DIGEST_BYTES > bytes.length) {
    const expected = `a block of a cache with ${ropes.length} rotations`;
    throw expectedError('SNAPSHOT_MISMATCH', argument, expected, 'that of another');
  }
  const theirs = ours.map((_, i) => bytes.readDoubleLE(HEAD_BYTES + 8 * i));
  sameRopes([ours], [theirs]);
  return HEAD_BYTES + 8 * count;
}

/** Writes numbers that decodeBlock gave into blocks that nobody else holds. */
export function writeNumbers(cache: KvCache, ids: readonly number[], numbers: Uint8Array): void {
  eachLayer(cache, ids, numbers, 'writeBlock');
}
