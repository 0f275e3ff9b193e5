/** Sequences and caches, as snapshots read and restore them. */
import type { Arena } from '../../backend/contract';
import { GqaError } from '../../core/errors';
import { DISPOSED } from '../../core/storage';
import { stateError } from '../../core/validate';
import { assignBlocks, blockIdOf, checkImage, heldBlocks, imageOf, setImage } from '../image';
import type { HeldBlock, SequenceImage } from '../image';
import type { KvCache } from '../kv-cache';
import type { LayerStorage } from '../layer-group';
import type { KeyRotation } from '../options';
import { startAfter } from '../geometry';
import type { KvSequence } from '../sequence';
import { blockBytes } from '../sizes';
import { invalidSnapshot, snapshotMismatch } from './contents';
import type {
  CacheFingerprint,
  LayerShape,
  SnapshotImage,
  SnapshotSource,
  SnapshotTarget,
} from './contents';

const fingerprints = new WeakMap<KvCache, CacheFingerprint>();

export function fingerprintOf(cache: KvCache): CacheFingerprint {
  let fingerprint = fingerprints.get(cache);
  if (fingerprint === undefined) {
    fingerprint = makeFingerprint(cache);
    fingerprints.set(cache, fingerprint);
  }
  return fingerprint;
}

function makeFingerprint(cache: KvCache): CacheFingerprint {
  const rotations = [...new Set(cache.storage.map(({ rope }) => rope))].filter((r) => r !== null);
  return {
    model: cache.model,
    ropes: rotations.map(turnedOnes),
    groups: cache.groups.map(({ geometry }) => ({
      blockTokens: geometry.blockTokens,
      window: geometry.window === Infinity ? null : geometry.window,
      sinkTokens: geometry.sinkTokens,
      recent: geometry.tail?.recent ?? null,
    })),
    layers: cache.storage.map((layer): LayerShape => {
      const { kvHeads, headDim, valueDim, rope } = layer;
      const { keyDtype, valueDtype, rotateKeys, rotateValues } = layer.arena.layout;
      return {
        group: cache.groups.indexOf(layer.group),
        kvHeads,
        headDim,
        valueDim,
        keyDtype,
        valueDtype,
        rotateKeys,
        rotateValues,
        rope: rope === null ? null : rotations.indexOf(rope),
      };
    }),
  };
}

/** A near position tells fast frequencies apart, a far one slow ones. */
const PROBE_POSITIONS = [1, 997];

/** What a rotation makes of ones, to six decimals. */
function turnedOnes(rope: KeyRotation): number[] {
  return PROBE_POSITIONS.flatMap((position) => {
    const x = new Float32Array(rope.headDim).fill(1);
    rope.apply(x, 1, 1, position);
    return Array.from(x, (value) => Math.round(value * 1e6) / 1e6 || 0);
  });
}

function arenaOf(layer: LayerStorage, tail: boolean): Arena {
  return tail ? layer.tailArena! : layer.arena;
}

function bytesOf(cache: KvCache, { group, tail }: HeldBlock): number {
  const { members } = cache.groups[group];
  return members.reduce((sum, layer) => sum + blockBytes(arenaOf(layer, tail).layout), 0);
}

/** What a block's bytes are, layer after layer. */
function eachLayer(
  sequence: KvSequence,
  place: HeldBlock,
  bytes: Uint8Array,
  visit: (args: { arena: Arena; id: number; bytes: Uint8Array; tokens: number }) => void,
): void {
  const id = blockIdOf(sequence, place);
  let at = 0;
  for (const layer of sequence.cache.groups[place.group].members) {
    const arena = arenaOf(layer, place.tail);
    const end = at + blockBytes(arena.layout);
    visit({ arena, id, bytes: bytes.subarray(at, end), tokens: place.tokens });
    at = end;
  }
}

/** @throws GqaError LAYERS_UNEVEN (in the middle of a step) */
export function sourceOf(sequence: KvSequence): SnapshotSource {
  const { cache } = sequence;
  const image = imageOf(sequence);
  const blocks = heldBlocks(cache, image);
  return {
    fingerprint: fingerprintOf(cache),
    image: withStarts(cache, image),
    blocks,
    blockBytes: (place) => bytesOf(cache, place),
    read: (index, bytes) =>
      eachLayer(sequence, blocks[index], bytes, (args) => cache.backend.readBlock(args)),
  };
}

function withStarts(cache: KvCache, { length, groups }: SequenceImage): SnapshotImage {
  return {
    length,
    groups: groups.map((ring, i) => {
      return { ...ring, start: startAfter(cache.groups[i].geometry, ring.peak) };
    }),
  };
}

export function targetOf(cache: KvCache): SnapshotTarget<KvSequence> {
  return {
    fingerprint: fingerprintOf(cache),
    blockBytes: (place) => bytesOf(cache, place),
    heldBlocks: (image) => {
      checkFits(cache, image);
      return heldBlocks(cache, image);
    },
    begin: (image) => beginRestoring(cache, image),
  };
}

/** @throws GqaError SNAPSHOT_MISMATCH, INVALID_SNAPSHOT. */
function checkFits(cache: KvCache, image: SnapshotImage): void {
  cache.groups.forEach(({ geometry }, i) => {
    const { peak, start } = image.groups[i];
    const { capacity, window } = geometry;
    if (window === Infinity && peak > capacity) {
      throw snapshotMismatch('length', `at most the capacity, ${capacity} tokens,`, `${peak}`);
    }
    const ours = startAfter(geometry, peak);
    if (ours !== start) {
      const expected = `positions from ${ours} on, as a capacity of ${capacity} holds them,`;
      throw snapshotMismatch('start', expected, `those from ${start} on`);
    }
  });
  try {
    checkImage(cache, image);
  } catch (error) {
    if (!(error instanceof GqaError)) throw error;
    const { argument, expected, received } = error;
    throw invalidSnapshot(`${expected} for ${argument}`, String(received));
  }
}

function beginRestoring(cache: KvCache, image: SnapshotImage) {
  const sequence = cache.sequence();
  const blocks = heldBlocks(cache, image);
  const discard = (): void => {
    if (sequence.state !== DISPOSED) sequence.letGo();
  };
  try {
    assignBlocks(sequence, blocks);
  } catch (error) {
    discard();
    throw error;
  }
  return {
    write: (index: number, bytes: Uint8Array): void => {
      // The cache may have been disposed while the next bytes were awaited.
      if (sequence.state === DISPOSED) throw stateError(DISPOSED, 'cache', 'cache');
      eachLayer(sequence, blocks[index], bytes, (args) => cache.backend.writeBlock(args));
    },
    finish: (): KvSequence => {
      if (sequence.state === DISPOSED) throw stateError(DISPOSED, 'cache', 'cache');
      setImage(sequence, image);
      return sequence;
    },
    abort: discard,
  };
}
