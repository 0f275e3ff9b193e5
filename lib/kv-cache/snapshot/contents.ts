/**
 * What a snapshot holds of a sequence, and how its reader and writer reach the blocks. The layout of the bytes is
 * docs/snapshots.md.
 */
import type { CacheDType } from '../../core/dtype';
import { expectedError } from '../../core/errors';
import type { GqaError } from '../../core/errors';
import type { HeldBlock, RingImage, SequenceImage } from '../image';

/** Layers that share a table of blocks. */
export interface GroupShape {
  blockTokens: number;
  /** Null for none. */
  window: number | null;
  sinkTokens: number;
  /** Newest tokens that stay in floats beside quantised blocks; null where nothing is quantised. */
  recent: number | null;
}

export interface LayerShape {
  group: number;
  kvHeads: number;
  headDim: number;
  valueDim: number;
  keyDtype: CacheDType;
  valueDtype: CacheDType;
  rotateKeys: boolean;
  rotateValues: boolean;
  /** Index in `ropes`; null where positions are the caller's affair. */
  rope: number | null;
}

/** What must be equal in the cache that wrote a snapshot and in the one that reads it. */
export interface CacheFingerprint {
  /** KvCacheOptions.model */
  model: string;
  /** What the rotations of a cache with positions of its own make of some vector; they are functions. */
  ropes: readonly (readonly number[])[];
  groups: readonly GroupShape[];
  layers: readonly LayerShape[];
}

/** What a group of a sequence holds. */
export interface HeldRing extends RingImage {
  /** The oldest position still held besides the sinks. */
  start: number;
}

export interface SnapshotImage extends SequenceImage {
  groups: readonly HeldRing[];
}

export interface SnapshotHeader {
  fingerprint: CacheFingerprint;
  image: SnapshotImage;
  blocks: readonly HeldBlock[];
}

/** A sequence, as snapshots read it; nothing changes in it meanwhile. */
export interface SnapshotSource extends SnapshotHeader {
  /** Bytes of a block in all layers of its group. */
  blockBytes(place: HeldBlock): number;
  /** The block of this index in `blocks`, into blockBytes bytes. */
  read(index: number, bytes: Uint8Array): void;
}

/** A cache, as snapshots are restored into it. */
export interface SnapshotTarget<T> {
  readonly fingerprint: CacheFingerprint;
  blockBytes(place: HeldBlock): number;
  /**
   * The blocks that a sequence of this image holds in this cache.
   *
   * @throws GqaError SNAPSHOT_MISMATCH where the cache cannot hold such a sequence.
   */
  heldBlocks(image: SnapshotImage): readonly HeldBlock[];
  /** Takes the blocks of a new sequence. @throws GqaError CAPACITY_EXCEEDED, DISPOSED, BUSY. */
  begin(image: SnapshotImage): RestoredBlocks<T>;
}

/** A sequence that is being restored and that nobody sees yet. */
export interface RestoredBlocks<T> {
  /** The block of this index. @throws GqaError DISPOSED where the cache has been disposed meanwhile. */
  write(index: number, bytes: Uint8Array): void;
  finish(): T;
  /** Gives the blocks back. */
  abort(): void;
}

/** Bytes that are no snapshot of this version, or no longer the one that was written. */
export function invalidSnapshot(expected: string, received: string): GqaError {
  return expectedError('INVALID_SNAPSHOT', 'snapshot', expected, received);
}

/** A sound snapshot that does not fit this cache. */
export function snapshotMismatch(what: string, expected: string, received: string): GqaError {
  return expectedError('SNAPSHOT_MISMATCH', `snapshot.${what}`, expected, received);
}
