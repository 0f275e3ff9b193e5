/**
 * Values of a block and KV head, quantised per token in groups of 32 dims: rows of GGUF's blocks as core/blocks.ts has
 * them, { d f16, q i8[32] } for q8, { d f16, m f16, q u4[32] } for q4.
 */
import { quantizeRow } from '../../core/blocks';
import { BLOCK_BYTES, BLOCK_VALUES, blocksOf } from '../../core/dtype';
import type { JsArena } from './arena';
import { newPlace } from './arena';
import { roundUpToLanes } from './panel';
import { widenTable } from './rows';

const place = newPlace();
/** A row filled up with zeros to whole groups; grown when needed. */
let row = new Float32Array(256);

/**
 * Rows [from, to) of a block into `rows`, at their places. The last group of a row may reach into the next row, which is
 * written after it, and beyond the last row by less than a group.
 */
export function dequantizeValues(
  arena: JsArena,
  kvHead: number,
  id: number,
  rows: Float32Array,
  from: number,
  to: number,
): void {
  const { valueDim, valueDtype } = arena.layout;
  arena.locateValues(kvHead, id, place);
  const bytes = place.data as Uint8Array;
  const stride = roundUpToLanes(valueDim);
  const widenGroup = valueDtype === 'q8' ? widenQ8 : widenQ4;
  const size = BLOCK_BYTES[blocksOf(valueDtype)!];
  for (let slot = from; slot < to; slot++) {
    let at = place.offset + slot * arena.valueStride;
    for (let dim = 0; dim < valueDim; dim += BLOCK_VALUES, at += size) {
      widenGroup(bytes, at, rows, slot * stride + dim);
    }
  }
}

function widenQ8(bytes: Uint8Array, at: number, out: Float32Array, to: number): void {
  const scale = widenTable('f16')[bytes[at] | (bytes[at + 1] << 8)];
  for (let i = 0; i < BLOCK_VALUES; i++) out[to + i] = scale * ((bytes[at + 2 + i] << 24) >> 24);
}

function widenQ4(bytes: Uint8Array, at: number, out: Float32Array, to: number): void {
  const values = widenTable('f16');
  const scale = values[bytes[at] | (bytes[at + 1] << 8)];
  const minimum = values[bytes[at + 2] | (bytes[at + 3] << 8)];
  for (let i = 0; i < BLOCK_VALUES / 2; i++) {
    const both = bytes[at + 4 + i];
    out[to + i] = scale * (both & 15) + minimum;
    out[to + i + BLOCK_VALUES / 2] = scale * (both >> 4) + minimum;
  }
}

/** A whole block from its f32 rows. */
export function quantizeValues(
  rows: Float32Array,
  offset: number,
  arena: JsArena,
  kvHead: number,
  id: number,
): void {
  const { valueDim, valueDtype, blockTokens } = arena.layout;
  const stride = roundUpToLanes(valueDim);
  const padded = Math.ceil(valueDim / BLOCK_VALUES) * BLOCK_VALUES;
  if (row.length < padded) row = new Float32Array(padded);
  row.fill(0, valueDim, padded);
  arena.locateValues(kvHead, id, place);
  for (let slot = 0; slot < blockTokens; slot++) {
    const from = offset + slot * stride;
    for (let d = 0; d < valueDim; d++) row[d] = rows[from + d];
    const at = place.offset + slot * arena.valueStride;
    quantizeRow(blocksOf(valueDtype)!, row, padded, place.data as Uint8Array, at);
  }
}
