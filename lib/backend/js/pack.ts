/** Weights into the order that panel.ts reads: [rows/8][columns][8 rows] in f32, padded with zeros. */
import { DEQUANTIZE } from '../../core/blocks';
import { BLOCK_BYTES, BLOCK_VALUES, isBlockDType } from '../../core/dtype';
import type { FloatData } from '../../core/dtype';
import type { GatherArgs, PackArgs, PackedWeights } from '../contract';
import { allocate } from './arena';
import { laneOffset, LANES, roundUpToLanes } from './panel';
import { narrow, widen } from './rows';

/** The row on its way, as f32; grown when needed. */
let row = new Float32Array(256);

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
