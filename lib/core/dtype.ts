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
