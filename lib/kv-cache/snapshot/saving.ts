/**
 * Sequences in a BlockStore: a manifest under the sequence's name, and blocks under the SHA-256 of their bytes, so that
 * what sequences share, and what was saved before, is there once.
 */
import { isUint8Array } from 'node:util/types';
import { expectedError } from '../../core/errors';
import { allocate, describe } from '../../core/validate';
import { planBytes, DIGEST_BYTES, readAll, readManifest, sha256, writeAll } from './codec';
import type { HeldBlock } from '../image';
import { invalidSnapshot } from './contents';
import type { SnapshotSource, SnapshotTarget } from './contents';
import { requireName, requireStore, storeFailed, storing } from './store';
import type { BlockStore } from './store';

export interface SaveResult {
  /** Blocks of the sequence. */
  blocks: number;
  /** Those that the store did not have yet. */
  written: number;
  /** Bytes put, the manifest's included. */
  bytes: number;
}

function blockKey(digest: Uint8Array): string {
  return `block/${Buffer.from(digest).toString('hex')}`;
}

function manifestKey(name: string): string {
  return `sequence/${name}`;
}

/**
 * What is known of the bytes of a sequence's blocks: the digests of whole ones. They do not change until the sequence
 * is cut below their end; then forget() must be told.
 */
export class KnownDigests {
  private readonly digests = new Map<string, { end: number; digest: Uint8Array }>();

  get(place: HeldBlock): Uint8Array | undefined {
    return this.digests.get(keyOf(place))?.digest;
  }

  /** Takes note of a block; of one that is not whole, nothing is known for long. */
  set(place: HeldBlock, blockTokens: number, digest: Uint8Array): void {
    if (place.tokens < blockTokens) return;
    this.digests.set(keyOf(place), { end: (place.ordinal + 1) * blockTokens, digest });
  }

  /** Positions from `length` on may hold other tokens from now on. */
  forget(length: number): void {
    for (const [key, { end }] of this.digests) if (end > length) this.digests.delete(key);
  }

  /** Knows only these blocks: others are no longer held. */
  keep(places: readonly HeldBlock[]): void {
    const held = new Set(places.map(keyOf));
    for (const key of this.digests.keys()) if (!held.has(key)) this.digests.delete(key);
  }

  copy(): KnownDigests {
    const copy = new KnownDigests();
    for (const [key, known] of this.digests) copy.digests.set(key, known);
    return copy;
  }
}

function keyOf({ group, tail, ordinal }: HeldBlock): string {
  return `${group}${tail ? 't' : 'm'}${ordinal}`;
}

/** What the store answered, once it is known to be what it should be. */
async function holds(store: BlockStore, key: string): Promise<boolean> {
  const answer: unknown = await storing('store', 'has', () => store.has(key));
  if (typeof answer === 'boolean') return answer;
  throw storeFailed('store', 'has', answer);
}

async function fetched(store: BlockStore, key: string): Promise<Uint8Array | null> {
  const bytes: unknown = await storing('store', 'get', () => store.get(key));
  if (bytes === null || isUint8Array(bytes)) return bytes;
  throw storeFailed('store', 'get', bytes);
}

/** How many blocks a store is asked for at once. */
const QUESTIONS = 64;

/** Which of the keys the store has. */
async function present(store: BlockStore, keys: readonly string[]): Promise<Set<string>> {
  const there = new Set<string>();
  for (let from = 0; from < keys.length; from += QUESTIONS) {
    const some = keys.slice(from, from + QUESTIONS);
    const answers = await Promise.all(some.map((key) => holds(store, key)));
    answers.forEach((answer, i) => answer && there.add(some[i]));
  }
  return there;
}

/**
 * Saves what the store does not have yet; blocks whose digest is known and that the store has are not even read. The
 * manifest comes last: until it is replaced, the name means what it meant.
 *
 * @throws GqaError STORE_FAILED, INVALID_ARGUMENT, OUT_OF_MEMORY.
 */
export async function saveSequence(
  source: SnapshotSource,
  known: KnownDigests,
  to: BlockStore,
  name: string,
): Promise<SaveResult> {
  const store = requireStore(to);
  requireName(name, 'name');
  const { blocks, fingerprint } = source;
  known.keep(blocks);
  const digests = blocks.map((place) => known.get(place));
  const keys = digests.filter((digest) => digest !== undefined).map(blockKey);
  const there = await present(store, keys);
  let written = 0;
  let bytes = 0;
  for (let i = 0; i < blocks.length; i++) {
    const expected = digests[i];
    if (expected !== undefined && there.has(blockKey(expected))) continue;
    const size = source.blockBytes(blocks[i]);
    const block = allocate(() => new Uint8Array(size), size, 'sequence');
    source.read(i, block);
    const digest = sha256(block);
    const key = blockKey(digest);
    if (!(await holds(store, key))) {
      await storing('store', 'put', () => store.put(key, block));
      written++;
      bytes += size;
    }
    digests[i] = digest;
    known.set(blocks[i], fingerprint.groups[blocks[i].group].blockTokens, digest);
  }
  const manifest = writeAll(
    planBytes('manifest', source, {
      bytes: () => DIGEST_BYTES,
      fill: (index, out) => out.set(digests[index]!),
    }),
  );
  await storing('store', 'put', () => store.put(manifestKey(name), manifest));
  return { blocks: blocks.length, written, bytes: bytes + manifest.length };
}

/**
 * A sequence that was saved under this name, and what is known of its blocks.
 *
 * @throws GqaError INVALID_ARGUMENT (`name`: nothing was saved under it), INVALID_SNAPSHOT (damaged, or blocks are
 *   gone), SNAPSHOT_MISMATCH, STORE_FAILED, CAPACITY_EXCEEDED, OUT_OF_MEMORY, DISPOSED, BUSY.
 */
export async function loadSequence<T>(
  target: SnapshotTarget<T>,
  from: BlockStore,
  name: string,
): Promise<{ sequence: T; known: KnownDigests }> {
  const store = requireStore(from);
  requireName(name, 'name');
  const manifest = await fetched(store, manifestKey(name));
  if (manifest === null) {
    throw expectedError('INVALID_ARGUMENT', 'name', 'the name of a saved sequence', describe(name));
  }
  const { header, digests } = readAll(readManifest(target), manifest);
  const known = new KnownDigests();
  const restored = target.begin(header.image);
  let whole = false;
  try {
    for (let i = 0; i < header.blocks.length; i++) {
      const place = header.blocks[i];
      restored.write(i, await fetchBlock(store, digests[i], target.blockBytes(place)));
      known.set(place, header.fingerprint.groups[place.group].blockTokens, digests[i]);
    }
    whole = true;
  } finally {
    if (!whole) restored.abort();
  }
  return { sequence: restored.finish(), known };
}

async function fetchBlock(
  store: BlockStore,
  digest: Uint8Array,
  size: number,
): Promise<Uint8Array> {
  const key = blockKey(digest);
  const bytes = await fetched(store, key);
  if (bytes === null) throw invalidSnapshot(`${key} in the store`, 'nothing');
  if (bytes.length !== size) throw invalidSnapshot(`${size} bytes for ${key}`, `${bytes.length}`);
  if (!sha256(bytes).equals(digest)) throw invalidSnapshot(`the bytes of ${key}`, 'others');
  return bytes;
}
