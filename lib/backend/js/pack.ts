/**
 * Keys, values and weights into the orders that panel.ts reads: K [tokens/8][headDim][8 tokens], V rows padded to 8,
 * weights [rows/8][columns][8 rows] in f32, padded with zeros.
 */
import { DEQUANTIZE, quantizeRow } from '../../core/blocks';
import { BLOCK_BYTES, BLOCK_VALUES, blocksOf, isBlockDType } from '../../core/dtype';
import type { FloatData, FloatDType } from '../../core/dtype';
import type { GatherArgs, PackArgs, PackedWeights, StoreArgs } from '../contract';
import type { BlockPlace, JsArena } from './arena';
import { allocate, blockId } from './arena';
import { LANES, roundUpToLanes } from './panel';
import { narrow, widen } from './rows';

/** The row on its way, as f32; grown when needed. */
let row = new Float32Array(256);
const place: BlockPlace = { data: row, offset: 0 };

export function store(args: StoreArgs): void {
  const { k, v, dtype: from } = args;
  const arena = args.arena as JsArena;
  const { kvHeads, headDim, valueDim, blockTokens } = arena.layout;
  reserveRow(Math.max(headDim, valueDim) + BLOCK_VALUES);
  for (let n = 0; n < args.count; n++) {
    const position = args.position + n;
    const slot = position % blockTokens;
    const id = blockId(args.table, (position - slot) / blockTokens);
    for (let head = 0; head < kvHeads; head++) {
      const source = (args.from + n) * kvHeads + head;
      widen(k, from, source * headDim, row, 0, headDim);
      arena.locateKeys(head, id, place);
      put(arena, slot, arena.keyStride, headDim, laneOffset(slot, headDim), LANES);

      widen(v, from, source * valueDim, row, 0, valueDim);
      arena.locateValues(head, id, place);
      put(arena, slot, arena.valueStride, valueDim, slot * arena.valueStride, 1);
    }
  }
}

/** `row` into the block at `place`: quantised as row `slot` of bytes, else as elements `step` apart. */
function put(
  arena: JsArena,
  slot: number,
  stride: number,
  dims: number,
  offset: number,
  step: number,
): void {
  const { keyDtype: dtype } = arena.layout;
  const blocks = blocksOf(dtype);
  if (blocks === null) {
    const floats = place.data as FloatData;
    narrow(row, floats, dtype as FloatDType, place.offset + offset, step, dims);
    return;
  }
  row.fill(0, dims, dims + BLOCK_VALUES);
  quantizeRow(blocks, row, dims, place.data as Uint8Array, place.offset + slot * stride);
}

/** Where row n (a token of K, an output feature of W) begins among panels of `length` steps; steps are 8 apart. */
export function laneOffset(n: number, length: number): number {
  const lane = n % LANES;
  return (n - lane) * length + lane;
}

function reserveRow(length: number): void {
  if (row.length < length) row = new Float32Array(length);
}

/** 16-bit and quantised weights are widened here, once: arithmetic, not memory, bounds JS, and a lookup a weight would halve its speed. */
export class JsPackedWeights implements PackedWeights {
  readonly bytes: number;
  data: Float32Array;

  constructor(
    readonly rows: number,
    readonly columns: number,
  ) {
    const elements = roundUpToLanes(rows) * columns;
    this.bytes = elements * Float32Array.BYTES_PER_ELEMENT;
    this.data = allocate(elements, 'f32', this.bytes) as Float32Array;
  }

  dispose(): void {
    this.data = new Float32Array(0);
  }
}

export function packWeights(args: PackArgs): PackedWeights {
  const { weight, dtype, rows, columns } = args;
  const packed = new JsPackedWeights(rows, columns);
  reserveRow(columns);
  const blockBytes = isBlockDType(dtype) ? (columns / BLOCK_VALUES) * BLOCK_BYTES[dtype] : 0;
  for (let n = 0; n < rows; n++) {
    if (isBlockDType(dtype)) {
      const blocks = (weight as Uint8Array).subarray(n * blockBytes, (n + 1) * blockBytes);
      DEQUANTIZE[dtype](blocks, row.subarray(0, columns));
    } else {
      widen(weight as FloatData, dtype, n * columns, row, 0, columns);
    }
    narrow(row, packed.data, 'f32', laneOffset(n, columns), LANES, columns);
  }
  return packed;
}

/** Rows of packed weights as they were. */
export function gather(args: GatherArgs): void {
  const { ids, out, count } = args;
  const { data, columns } = args.weights as JsPackedWeights;
  for (let i = 0; i < count; i++) {
    const from = laneOffset(ids[i], columns);
    for (let k = 0; k < columns; k++) out[i * columns + k] = data[from + k * LANES];
  }
}
