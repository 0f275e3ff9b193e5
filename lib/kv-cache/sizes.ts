/** Bytes of keys and values, as numbers with their scales; what an arena pads them to is the backend's affair. */
import type { ArenaLayout } from '../backend/contract';
import { DTYPE_BYTES, cacheRowBytes } from '../core/dtype';
import type { CacheDType } from '../core/dtype';

/** f16 scale and minimum of a dim over the tokens of a block. */
const KEY_SCALE_BYTES = 4;

/** Of the keys of a block and KV head. */
export function keyBytes(dtype: CacheDType, headDim: number, blockTokens: number): number {
  if (dtype === 'q8') return headDim * (blockTokens + KEY_SCALE_BYTES);
  if (dtype === 'q4') return blockTokens * Math.ceil(headDim / 2) + headDim * KEY_SCALE_BYTES;
  return blockTokens * headDim * DTYPE_BYTES[dtype];
}

/** Of a block, all KV heads: what readBlock writes. */
export function blockBytes(layout: ArenaLayout): number {
  const { kvHeads, headDim, valueDim, keyDtype, valueDtype, blockTokens } = layout;
  const keys = keyBytes(keyDtype, headDim, blockTokens);
  return kvHeads * (keys + blockTokens * cacheRowBytes(valueDtype, valueDim));
}
