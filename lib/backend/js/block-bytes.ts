/**
 * Blocks in the form of snapshots, whose order is no backend's (docs/snapshots.md), and back. For each KV head K, then V;
 * numbers are little-endian whatever the host.
 */
import type { BlockBytesArgs } from '../contract';
import type { BlockPlace, JsArena } from './arena';
import { isQuantised, newPlace } from './arena';
import { laneOffset, LANES } from './panel';

const place = newPlace();

/** Reads `view` where it writes an arena, writes it where it reads one. */
interface Cursor {
  view: DataView;
  at: number;
  writesArena: boolean;
}

export function readBlock(args: BlockBytesArgs): void {
  args.bytes.fill(0);
  exchange(args, args.tokens, false);
}

/** Slots that hold no token are written too: whatever reads a whole block finds numbers. */
export function writeBlock(args: BlockBytesArgs): void {
  exchange(args, args.arena.layout.blockTokens, true);
}

/** Slots [0, tokens); those after them are passed over. */
function exchange(
  { arena, id, bytes }: BlockBytesArgs,
  tokens: number,
  writesArena: boolean,
): void {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const cursor: Cursor = { view, at: 0, writesArena };
  for (let head = 0; head < arena.layout.kvHeads; head++) {
    exchangeKeys(arena as JsArena, head, id, tokens, cursor);
    exchangeValues(arena as JsArena, head, id, tokens, cursor);
  }
}

/** Floats [tokens][headDim]; quantised, minimums [headDim], scales [headDim], then codes [tokens][headDim]. */
function exchangeKeys(
  arena: JsArena,
  head: number,
  id: number,
  tokens: number,
  cursor: Cursor,
): void {
  const { headDim, keyDtype, blockTokens } = arena.layout;
  if (isQuantised(keyDtype)) {
    arena.locateKeyScales(head, id, place);
    exchangeRow(bitsOf(place), place.offset, 1, 2 * headDim, cursor);
  }
  arena.locateKeys(head, id, place);
  const bits = bitsOf(place);
  const nibbles = keyDtype === 'q4';
  const rowBytes = nibbles ? Math.ceil(headDim / 2) : headDim * bits.BYTES_PER_ELEMENT;
  const end = cursor.at + blockTokens * rowBytes;
  for (let slot = 0; slot < tokens; slot++) {
    const lane = laneOffset(slot, headDim);
    if (nibbles) exchangeNibbles(bits, place.offset, lane, headDim, cursor);
    else exchangeRow(bits, place.offset + lane, LANES, headDim, cursor);
  }
  cursor.at = end;
}

/** Floats [tokens][valueDim]; quantised, [tokens] rows of GGUF's blocks. */
function exchangeValues(
  arena: JsArena,
  head: number,
  id: number,
  tokens: number,
  cursor: Cursor,
): void {
  const { valueDim, valueDtype, blockTokens } = arena.layout;
  arena.locateValues(head, id, place);
  const bits = bitsOf(place);
  const elements = isQuantised(valueDtype) ? arena.valueStride : valueDim;
  const end = cursor.at + blockTokens * elements * bits.BYTES_PER_ELEMENT;
  for (let slot = 0; slot < tokens; slot++) {
    exchangeRow(bits, place.offset + slot * arena.valueStride, 1, elements, cursor);
  }
  cursor.at = end;
}

type Bits = Uint8Array | Uint16Array | Uint32Array;

/** The elements as whole numbers: an f32 that is moved as a number may lose the bits of a NaN. */
function bitsOf({ data }: BlockPlace): Bits {
  if (!(data instanceof Float32Array)) return data;
  return new Uint32Array(data.buffer, data.byteOffset, data.length);
}

/** `count` elements from `first` on, `step` apart. */
function exchangeRow(bits: Bits, first: number, step: number, count: number, cursor: Cursor): void {
  const { view, writesArena } = cursor;
  const width = bits.BYTES_PER_ELEMENT;
  const end = first + count * step;
  for (let i = first; i < end; i += step, cursor.at += width) {
    if (writesArena) bits[i] = load(view, cursor.at, width);
    else save(view, cursor.at, width, bits[i]);
  }
}

function load(view: DataView, at: number, width: number): number {
  if (width === 1) return view.getUint8(at);
  return width === 2 ? view.getUint16(at, true) : view.getUint32(at, true);
}

function save(view: DataView, at: number, width: number, bits: number): void {
  if (width === 1) view.setUint8(at, bits);
  else if (width === 2) view.setUint16(at, bits, true);
  else view.setUint32(at, bits, true);
}

/** A token's 4-bit codes: dims two a byte, the even one low; in the arena tokens are, see quantised-keys.ts. */
function exchangeNibbles(
  codes: Bits,
  offset: number,
  lane: number,
  headDim: number,
  cursor: Cursor,
): void {
  const { view, writesArena } = cursor;
  const shift = 4 * (lane % 2);
  const first = offset + (lane - (lane % 2)) / 2;
  for (let dim = 0; dim < headDim; dim++) {
    const i = first + (dim * LANES) / 2;
    const byte = cursor.at + (dim >> 1);
    const half = 4 * (dim % 2);
    if (writesArena) {
      const code = (view.getUint8(byte) >> half) & 15;
      codes[i] = (codes[i] & ~(15 << shift)) | (code << shift);
    } else {
      const code = (codes[i] >> shift) & 15;
      view.setUint8(byte, view.getUint8(byte) | (code << half));
    }
  }
  cursor.at += (headDim + 1) >> 1;
}
