/**
 * Snapshots and manifests as bytes (docs/snapshots.md): prefix, header and its digest, a payload per block, digest of all.
 *
 * Written by a generator of chunks and read by a generator that asks for spans, so that one code serves arrays, files
 * and streams.
 */
import { createHash } from 'node:crypto';
import type { Hash } from 'node:crypto';
import { expectedError } from '../../core/errors';
import type { GqaError } from '../../core/errors';
import { allocate } from '../../core/validate';
import { checkHeader, MAX_HEADER_BYTES, readHeader, writeHeader } from './header';
import type { HeldBlock } from '../image';
import { invalidSnapshot } from './contents';
import type { SnapshotHeader, SnapshotSource, SnapshotTarget } from './contents';

/** 0x89, 'gqa', the kind, CR LF, 0x1a: as PNG's, it shows transfers that change line ends or cut the eighth bit. */
const MAGIC = { snapshot: magic('S'), manifest: magic('M') };
export type Kind = keyof typeof MAGIC;
export const FORMAT_VERSION = 1;
/** Magic, then the version and the header's bytes as u32, little-endian. */
const PREFIX_BYTES = 16;
export const DIGEST_BYTES = 32;

export function magic(kind: string): Buffer {
  return Buffer.from(`\x89gqa${kind}\r\n\x1a`, 'latin1');
}

/** What a hash takes at once is less than 2^31 bytes. */
const HASH_BYTES = 2 ** 30;

function update(hash: Hash, bytes: Uint8Array): void {
  for (let at = 0; at < bytes.length; at += HASH_BYTES) {
    hash.update(bytes.subarray(at, at + HASH_BYTES));
  }
}

export function sha256(...parts: readonly Uint8Array[]): Buffer {
  const hash = createHash('sha256');
  for (const part of parts) update(hash, part);
  return hash.digest();
}

// ---- writing

/** What follows the header: `bytes` of each block, in the order of the header's blocks. */
export interface Payloads {
  bytes(place: HeldBlock): number;
  fill(index: number, bytes: Uint8Array): void;
}

/** A header, ready to be written, with the number of bytes of everything. */
export interface Plan {
  head: Uint8Array;
  header: SnapshotHeader;
  payloads: Payloads;
  bytes: number;
}

/** @throws GqaError OUT_OF_RANGE where the header would be longer than its limit. */
export function planBytes(kind: Kind, header: SnapshotHeader, payloads: Payloads): Plan {
  const json = writeHeader(header);
  if (json.length > MAX_HEADER_BYTES) {
    const expected = `a header of at most ${MAX_HEADER_BYTES} bytes`;
    throw expectedError('OUT_OF_RANGE', 'sequence', expected, `${json.length} bytes`);
  }
  const prefix = Buffer.alloc(PREFIX_BYTES);
  MAGIC[kind].copy(prefix);
  prefix.writeUInt32LE(FORMAT_VERSION, 8);
  prefix.writeUInt32LE(json.length, 12);
  const head = Buffer.concat([prefix, json, sha256(prefix, json)]);
  let bytes = head.length + DIGEST_BYTES;
  for (const place of header.blocks) bytes += payloads.bytes(place);
  return { head, header, payloads, bytes };
}

export function planSnapshot(source: SnapshotSource): Plan {
  return planBytes('snapshot', source, {
    bytes: (place) => source.blockBytes(place),
    fill: (index, bytes) => source.read(index, bytes),
  });
}

/** The bytes in order, in chunks that `take` provides the memory for. */
export function* writeChunks(
  { head, header, payloads }: Plan,
  take: (bytes: number) => Uint8Array,
): Generator<Uint8Array, void, void> {
  const hash = createHash('sha256');
  const first = take(head.length);
  first.set(head);
  update(hash, first);
  yield first;
  for (let i = 0; i < header.blocks.length; i++) {
    const chunk = take(payloads.bytes(header.blocks[i]));
    payloads.fill(i, chunk);
    update(hash, chunk);
    yield chunk;
  }
  const last = take(DIGEST_BYTES);
  last.set(hash.digest());
  yield last;
}

/** All chunks in one array. @throws GqaError OUT_OF_MEMORY */
export function writeAll(plan: Plan): Uint8Array {
  const out = allocate(() => new Uint8Array(plan.bytes), plan.bytes, 'sequence');
  let at = 0;
  const chunks = writeChunks(plan, (bytes) => out.subarray(at, (at += bytes)));
  while (chunks.next().done !== true);
  return out;
}

// ---- reading

/** Asks for the next so many bytes, valid until it asks again; END asks whether any are left, and gets them if so. */
export type Reading<T> = Generator<number, T, Uint8Array>;
export const END = -1;

/** Drives a reading over an array. */
export function readAll<T>(reading: Reading<T>, bytes: Uint8Array): T {
  let at = 0;
  let step = reading.next(new Uint8Array(0));
  while (step.done !== true) {
    const span = step.value === END ? bytes.subarray(at) : bytes.subarray(at, at + step.value);
    at += span.length;
    step = reading.next(span);
  }
  return step.value;
}

/**
 * A whole snapshot, checked as it comes: nothing is seen of its sequence unless all of it is sound.
 *
 * @param checkRest Called with the bytes that the whole must have, before the cache gives blocks.
 */
export function* readSnapshot<T>(
  target: SnapshotTarget<T>,
  checkRest: (bytes: number) => void = () => undefined,
): Reading<T> {
  const hash = createHash('sha256');
  const { header, bytes: headBytes } = yield* readHead('snapshot', hash);
  checkHeader(header, target);
  const sizes = header.blocks.map((place) => target.blockBytes(place));
  checkRest(sizes.reduce((sum, bytes) => sum + bytes, headBytes + DIGEST_BYTES));
  const restored = target.begin(header.image);
  let whole = false;
  try {
    for (let i = 0; i < sizes.length; i++) restored.write(i, yield* span(sizes[i], hash));
    yield* readEnd(hash);
    whole = true;
  } finally {
    if (!whole) restored.abort();
  }
  return restored.finish();
}

/** A snapshot in an array, where all of it is checked before the cache is touched. */
export function restoreBytes<T>(target: SnapshotTarget<T>, bytes: Uint8Array): T {
  const checkRest = (expected: number): void => {
    if (bytes.length < expected) throw endsEarly(bytes.length, expected);
    const end = bytes.length - DIGEST_BYTES;
    if (!sha256(bytes.subarray(0, end)).equals(bytes.subarray(end))) throw damaged();
  };
  return readAll(readSnapshot(target, checkRest), bytes);
}

/** A manifest: its header, and the digest of each block. */
export function* readManifest(
  target: SnapshotTarget<unknown>,
): Reading<{ header: SnapshotHeader; digests: Uint8Array[] }> {
  const hash = createHash('sha256');
  const { header } = yield* readHead('manifest', hash);
  checkHeader(header, target);
  const digests: Uint8Array[] = [];
  for (let i = 0; i < header.blocks.length; i++) {
    digests.push(Uint8Array.from(yield* span(DIGEST_BYTES, hash)));
  }
  yield* readEnd(hash);
  return { header, digests };
}

function* readHead(kind: Kind, hash: Hash): Reading<{ header: SnapshotHeader; bytes: number }> {
  const prefix = Uint8Array.from(yield* span(PREFIX_BYTES, hash));
  const view = Buffer.from(prefix.buffer);
  if (!view.subarray(0, 8).equals(MAGIC[kind])) {
    throw invalidSnapshot(`bytes that begin as a ${kind}`, view.toString('hex', 0, 8));
  }
  const version = view.readUInt32LE(8);
  if (version !== FORMAT_VERSION) {
    throw invalidSnapshot(`format version ${FORMAT_VERSION}`, `version ${version}`);
  }
  const length = view.readUInt32LE(12);
  if (length > MAX_HEADER_BYTES) {
    throw invalidSnapshot(`a header of at most ${MAX_HEADER_BYTES} bytes`, `${length} bytes`);
  }
  const bytes = yield* span(length + DIGEST_BYTES, hash);
  const json = bytes.subarray(0, length);
  if (!sha256(prefix, json).equals(bytes.subarray(length))) throw damaged();
  return { header: readHeader(json), bytes: PREFIX_BYTES + bytes.length };
}

function* span(bytes: number, hash: Hash): Reading<Uint8Array> {
  const given = yield bytes;
  if (given.length !== bytes) throw endsEarly(given.length, bytes);
  update(hash, given);
  return given;
}

function* readEnd(hash: Hash): Reading<void> {
  const expected = hash.digest();
  const digest = yield DIGEST_BYTES;
  if (digest.length !== DIGEST_BYTES) throw endsEarly(digest.length, DIGEST_BYTES);
  if (!expected.equals(digest)) throw damaged();
  const rest = yield END;
  if (rest.length > 0) throw invalidSnapshot('nothing behind the checksum', 'more bytes');
}

function endsEarly(bytes: number, wanted: number): GqaError {
  return invalidSnapshot(`${wanted} bytes`, `${bytes} and the end`);
}

function damaged(): GqaError {
  return invalidSnapshot('bytes of their checksum', 'others');
}
