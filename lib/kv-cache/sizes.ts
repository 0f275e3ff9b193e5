/** Bytes of keys and values, as numbers with their scales; what an arena pads them to is the backend's affair. */
import type { ArenaLayout } from '../backend/contract';
import { BLOCK_BYTES, BLOCK_VALUES, DTYPE_BYTES } from '../core/dtype';
import type { CacheDType } from '../core/dtype';

/** f16 scale and minimum of a dim over the tokens of a block. */
const KEY_SCALE_BYTES = 4;

/** Of the keys of a block and KV head. */
export function keyBytes(dtype: CacheDType, headDim: number, blockTokens: number): number {
  if (dtype === 'q8') return headDim * (blockTokens + KEY_SCALE_BYTES);
  if (dtype === 'q4') return blockTokens * Math.ceil(headDim / 2) + headDim * KEY_SCALE_BYTES;
  return blockTokens * headDim * DTYPE_BYTES[dtype];
}

/** Of the values of a block and KV head: groups of 32 dims of a token. */
export function valueBytes(dtype: CacheDType, valueDim: number, blockTokens: number): number {
  if (dtype === 'q8' || dtype === 'q4') {
    const groups = Math.ceil(valueDim / BLOCK_VALUES);
    return blockTokens * groups * BLOCK_BYTES[dtype === 'q8' ? 'q8_0' : 'q4_1'];
  }
  return blockTokens * valueDim * DTYPE_BYTES[dtype];
}

/** Of a block, all KV heads: what readBlock writes. */
export function blockBytes(layout: ArenaLayout): number {
  const { kvHeads, headDim, valueDim, keyDtype, valueDtype, blockTokens } = layout;
  const keys = keyBytes(keyDtype, headDim, blockTokens);
  return kvHeads * (keys + valueBytes(valueDtype, valueDim, blockTokens));
}
