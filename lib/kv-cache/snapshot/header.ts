/**
 * The header of snapshots and manifests: JSON of exactly the form that writeHeader gives. Nothing in it is trusted:
 * every field is checked for type and range, and the cache decides what it must say before anything follows from it.
 */
import { isCacheDType } from '../../core/dtype';
import { describe } from '../../core/validate';
import type { HeldBlock } from '../image';
import { invalidSnapshot, snapshotMismatch } from './contents';
import type {
  CacheFingerprint,
  HeldRing,
  GroupShape,
  LayerShape,
  SnapshotImage,
  SnapshotHeader,
  SnapshotTarget,
} from './contents';

/** A longer header is refused before it is read: 64 million tokens and thousands of layers fit. */
export const MAX_HEADER_BYTES = 2 ** 26;

/** [group, 1 for a tail's block, ordinal, tokens]: there are many of them. */
type PlaceRow = [number, number, number, number];

export function writeHeader({ fingerprint, image, blocks }: SnapshotHeader): Uint8Array {
  const rows = blocks.map((b): PlaceRow => [b.group, b.tail ? 1 : 0, b.ordinal, b.tokens]);
  return Buffer.from(headerText(fingerprint, image, rows));
}

/** Fields in this order, and no others. */
function headerText(
  { model, ropes, groups, layers }: CacheFingerprint,
  { length, groups: images }: SnapshotImage,
  blocks: readonly PlaceRow[],
): string {
  return JSON.stringify({
    model,
    ropes,
    groups: groups.map(orderedGroup),
    layers: layers.map(orderedLayer),
    length,
    held: images.map(orderedImage),
    blocks,
  });
}

function orderedGroup({ blockTokens, window, sinkTokens, recent }: GroupShape): GroupShape {
  return { blockTokens, window, sinkTokens, recent };
}

function orderedLayer(layer: LayerShape): LayerShape {
  const { group, kvHeads, headDim, valueDim } = layer;
  const { keyDtype, valueDtype, rotateKeys, rotateValues, rope } = layer;
  const stored = { keyDtype, valueDtype, rotateKeys, rotateValues };
  return { group, kvHeads, headDim, valueDim, ...stored, rope };
}

function orderedImage({ peak, start, tailFrom, floatSinks }: HeldRing): HeldRing {
  return { peak, start, tailFrom, floatSinks };
}

/** @throws GqaError INVALID_SNAPSHOT */
export function readHeader(bytes: Uint8Array): SnapshotHeader {
  const text = decodeText(bytes);
  const fields = object('header', parseJson(text));
  const fingerprint: CacheFingerprint = {
    model: string('model', fields.model),
    ropes: array('ropes', fields.ropes).map((rope) => array('ropes', rope).map(finite)),
    groups: array('groups', fields.groups).map(readGroup),
    layers: array('layers', fields.layers).map(readLayer),
  };
  const image: SnapshotImage = {
    length: count('length', fields.length),
    groups: array('held', fields.held).map(readImage),
  };
  const rows = array('blocks', fields.blocks).map(readRow);
  // One text per header: no other field, no field twice, no other spelling of a number.
  if (headerText(fingerprint, image, rows) !== text) {
    throw invalidSnapshot('a header in the form of this version', 'another');
  }
  const blocks = rows.map(([group, tail, ordinal, tokens]): HeldBlock => {
    return { group, tail: tail === 1, ordinal, tokens };
  });
  return { fingerprint, image, blocks };
}

function decodeText(bytes: Uint8Array): string {
  try {
    return new TextDecoder('utf-8', { fatal: true, ignoreBOM: true }).decode(bytes);
  } catch {
    throw invalidSnapshot('a header in UTF-8', 'other bytes');
  }
}

function parseJson(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    throw invalidSnapshot('a header in JSON', 'other text');
  }
}

function readGroup(value: unknown): GroupShape {
  const fields = object('groups', value);
  return {
    blockTokens: count('blockTokens', fields.blockTokens, 1),
    window: fields.window === null ? null : count('window', fields.window, 1),
    sinkTokens: count('sinkTokens', fields.sinkTokens),
    recent: fields.recent === null ? null : count('recent', fields.recent),
  };
}

function readLayer(value: unknown): LayerShape {
  const fields = object('layers', value);
  const dtype = (name: string) => {
    const given = fields[name];
    return isCacheDType(given) ? given : refuse(name, 'a dtype', given);
  };
  return {
    group: count('group', fields.group),
    kvHeads: count('kvHeads', fields.kvHeads, 1),
    headDim: count('headDim', fields.headDim, 1),
    valueDim: count('valueDim', fields.valueDim, 1),
    keyDtype: dtype('keyDtype'),
    valueDtype: dtype('valueDtype'),
    rotateKeys: boolean('rotateKeys', fields.rotateKeys),
    rotateValues: boolean('rotateValues', fields.rotateValues),
    rope: fields.rope === null ? null : count('rope', fields.rope),
  };
}

function readImage(value: unknown): HeldRing {
  const fields = object('held', value);
  return {
    peak: count('peak', fields.peak),
    start: count('start', fields.start),
    tailFrom: count('tailFrom', fields.tailFrom),
    floatSinks: count('floatSinks', fields.floatSinks),
  };
}

function readRow(value: unknown): PlaceRow {
  const row = array('blocks', value).map((v) => count('blocks', v));
  if (row.length !== 4 || row[1] > 1) refuse('blocks', '[group, 0 or 1, ordinal, tokens]', value);
  return row as PlaceRow;
}

// ---- fields

function refuse(name: string, expected: string, value: unknown): never {
  throw invalidSnapshot(`${expected} for ${name}`, describe(value));
}

function object(name: string, value: unknown): Record<string, unknown> {
  if (typeof value === 'object' && value !== null && !Array.isArray(value)) {
    return value as Record<string, unknown>;
  }
  return refuse(name, 'an object', value);
}

function array(name: string, value: unknown): unknown[] {
  return Array.isArray(value) ? (value as unknown[]) : refuse(name, 'an array', value);
}

function string(name: string, value: unknown): string {
  return typeof value === 'string' ? value : refuse(name, 'text', value);
}

function boolean(name: string, value: unknown): boolean {
  return typeof value === 'boolean' ? value : refuse(name, 'true or false', value);
}

function finite(value: unknown): number {
  const valid = typeof value === 'number' && Number.isFinite(value);
  return valid ? value : refuse('ropes', 'numbers', value);
}

function count(name: string, value: unknown, min = 0): number {
  const valid = Number.isSafeInteger(value) && (value as number) >= min;
  return valid ? (value as number) : refuse(name, `an integer of at least ${min}`, value);
}

// ---- against a cache

/**
 * That the cache can hold what the header describes, and that the header lists just the blocks that follow from it.
 *
 * @throws GqaError SNAPSHOT_MISMATCH, INVALID_SNAPSHOT.
 */
export function checkHeader(header: SnapshotHeader, target: SnapshotTarget<unknown>): void {
  checkFingerprint(header.fingerprint, target.fingerprint);
  const groups = target.fingerprint.groups.length;
  if (header.image.groups.length !== groups) {
    throw invalidSnapshot(`what ${groups} groups hold`, `that of ${header.image.groups.length}`);
  }
  for (const { peak, start } of header.image.groups) {
    if (peak < header.image.length || start > peak) {
      throw invalidSnapshot('a peak of at least the length, and a start before it', `${peak}`);
    }
  }
  const held = target.heldBlocks(header.image);
  const same =
    held.length === header.blocks.length && held.every((b, i) => equal(b, header.blocks[i]));
  if (!same) throw invalidSnapshot('the blocks that a sequence of its length holds', 'others');
}

function equal(a: HeldBlock, b: HeldBlock): boolean {
  const same = a.group === b.group && a.tail === b.tail;
  return same && a.ordinal === b.ordinal && a.tokens === b.tokens;
}

function checkFingerprint(theirs: CacheFingerprint, ours: CacheFingerprint): void {
  same('model', ours.model, theirs.model);
  sameRows('layers', ours.layers, theirs.layers);
  sameRows('groups', ours.groups, theirs.groups);
  sameRopes(ours.ropes, theirs.ropes);
}

function same(what: string, ours: unknown, theirs: unknown): void {
  if (ours === theirs) return;
  throw snapshotMismatch(
    what,
    JSON.stringify(ours).slice(0, 80),
    JSON.stringify(theirs).slice(0, 80),
  );
}

function sameRows<T extends object>(what: string, ours: readonly T[], theirs: readonly T[]): void {
  same(`${what}.length`, ours.length, theirs.length);
  ours.forEach((row, i) => {
    for (const key of Object.keys(row) as (keyof T & string)[]) {
      same(`${what}[${i}].${key}`, row[key], theirs[i][key]);
    }
  });
}

/** Values of a rotation in f32: backends and CPUs may round them differently. */
const ROPE_TOLERANCE = 1e-3;

type Ropes = CacheFingerprint['ropes'];

export function sameRopes(ours: Ropes, theirs: Ropes): void {
  same('ropes.length', ours.length, theirs.length);
  ours.forEach((rope, i) => {
    same(`ropes[${i}].length`, rope.length, theirs[i].length);
    if (rope.every((value, j) => Math.abs(value - theirs[i][j]) <= ROPE_TOLERANCE)) return;
    throw snapshotMismatch(`ropes[${i}]`, 'the rotation of this cache', 'another');
  });
}
