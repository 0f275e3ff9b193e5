/** Element types of tensors. f16 and bf16 are held as their 16 bits in a Uint16Array. */
export type DType = 'f32' | 'f16' | 'bf16' | 'i8' | 'u8' | 'i32';
/** The dtypes attention computes over. Accumulation is always f32 at least. */
export type FloatDType = 'f32' | 'f16' | 'bf16';

export interface TypedArrayByDType {
  f32: Float32Array;
  f16: Uint16Array;
  bf16: Uint16Array;
  i8: Int8Array;
  u8: Uint8Array;
  i32: Int32Array;
}
export type TypedArrayOf<D extends DType> = TypedArrayByDType[D];
export type FloatData = Float32Array | Uint16Array;

/** Weights may also be GGUF's blocks of 32: a scale (q4_1: and a minimum) and 8- or 4-bit values, as bytes. */
export type BlockDType = 'q8_0' | 'q4_0' | 'q4_1';
export type WeightDType = FloatDType | BlockDType;
export type WeightData = FloatData | Uint8Array;

/**
 * How a KV cache stores keys and values: as floats, or each token's row in blocks of 32 dims with a scale (q8: the
 * block of q8_0, 8.5 bits a value) or a scale and a minimum (q4: that of q4_1, 5 bits).
 */
export type CacheDType = FloatDType | 'q8' | 'q4';
export const CACHE_DTYPES: readonly CacheDType[] = ['f32', 'f16', 'bf16', 'q8', 'q4'];
/** The largest magnitude that q8 and q4 take, f16's own: scales and minimums are f16. */
export const QUANTISED_LIMIT = 65504;

/** Values of a block. */
export const BLOCK_VALUES = 32;
export const BLOCK_BYTES: Readonly<Record<BlockDType, number>> = { q8_0: 34, q4_0: 18, q4_1: 20 };

export function isBlockDType(dtype: unknown): dtype is BlockDType {
  return typeof dtype === 'string' && Object.hasOwn(BLOCK_BYTES, dtype);
}

/** Bytes of one element. */
export const DTYPE_BYTES: Readonly<Record<DType, number>> = {
  f32: 4,
  f16: 2,
  bf16: 2,
  i8: 1,
  u8: 1,
  i32: 4,
};

/** The codes of native/ops.h's DType, in the same order. */
export const DTYPE_CODE: Readonly<Record<DType, number>> = {
  f32: 0,
  f16: 1,
  bf16: 2,
  i8: 3,
  u8: 4,
  i32: 5,
};

/** The same for weights. */
export const WEIGHT_DTYPE_CODE: Readonly<Record<WeightDType, number>> = {
  f32: 0,
  f16: 1,
  bf16: 2,
  q8_0: 6,
  q4_0: 7,
  q4_1: 8,
};

/** Blocks that a quantised cache is made of; null for floats. */
export function blocksOf(dtype: CacheDType): 'q8_0' | 'q4_1' | null {
  if (dtype === 'q8') return 'q8_0';
  return dtype === 'q4' ? 'q4_1' : null;
}

/** The same for caches. */
export function cacheDTypeCode(dtype: CacheDType): number {
  return WEIGHT_DTYPE_CODE[dtype === 'q8' ? 'q8_0' : dtype === 'q4' ? 'q4_1' : dtype];
}

/** Bytes of a token's value of one head, `dim` elements, or of its key in floats; quantised ones are padded to whole blocks. */
export function cacheRowBytes(dtype: CacheDType, dim: number): number {
  if (dtype === 'q8' || dtype === 'q4') {
    return Math.ceil(dim / BLOCK_VALUES) * BLOCK_BYTES[dtype === 'q8' ? 'q8_0' : 'q4_1'];
  }
  return dim * DTYPE_BYTES[dtype];
}

export function isCacheDType(dtype: unknown): dtype is CacheDType {
  return CACHE_DTYPES.includes(dtype as CacheDType);
}
