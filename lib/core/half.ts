/**
 * f16 and bf16 as their 16 bits, to and from f32: round to nearest even, overflow to Infinity, subnormals kept,
 * NaN stays NaN (quiet, with the upper bits of its payload), as the conversion instructions of CPUs do.
 */
const value = new Float32Array(1);
const bits = new Uint32Array(value.buffer);

const F32_INFINITY = 0x7f800000;
/** 2^-14 as f32 bits: the smallest normal f16. */
const F16_MIN_NORMAL = 0x38800000;
/** 2^16 as f32 bits: beyond every f16 (65504 and what rounds to it lie below). */
const F16_BEYOND = 0x47800000;

export function f32ToF16Bits(x: number): number {
  value[0] = x;
  const sign = (bits[0] >>> 16) & 0x8000;
  const magnitude = bits[0] & 0x7fffffff;
  if (magnitude > F32_INFINITY) return sign | 0x7e00 | ((magnitude >>> 13) & 0x3ff);
  if (magnitude >= F16_BEYOND) return sign | 0x7c00;
  if (magnitude < F16_MIN_NORMAL) {
    // In [0.5, 1) one f32 step is 2^-24, the step of f16's subnormals: the addition does the rounding.
    value[0] = Math.abs(value[0]) + 0.5;
    return sign | (bits[0] - 0x3f000000);
  }
  // Rebias the exponent by 127 - 15, then drop 13 bits of mantissa; a carry may run into the exponent.
  const rebased = magnitude - 0x38000000;
  return sign | ((rebased + 0xfff + ((rebased >>> 13) & 1)) >>> 13);
}

export function f16BitsToF32(h: number): number {
  const magnitude = h & 0x7fff;
  const sign = (h & 0x8000) << 16;
  if (magnitude >= 0x7c00) {
    bits[0] = sign | F32_INFINITY | ((magnitude & 0x3ff) << 13);
    return value[0];
  }
  // As f32 with an exponent 112 too small; the product is exact and turns subnormals into normals.
  bits[0] = sign | (magnitude << 13);
  return value[0] * 2 ** 112;
}

export function f32ToBf16Bits(x: number): number {
  value[0] = x;
  const b = bits[0];
  if ((b & 0x7fffffff) > F32_INFINITY) return (b >>> 16) | 0x40;
  return (b + 0x7fff + ((b >>> 16) & 1)) >>> 16;
}

export function bf16BitsToF32(h: number): number {
  bits[0] = h << 16;
  return value[0];
}

/**
 * A double as an f32 that rounds on as the double would: where x is no f32, the neighbour whose last bit is odd.
 * An odd last bit is never a tie for a narrower format, so x is rounded once, not twice.
 */
export function roundToOdd(x: number): number {
  value[0] = x;
  if (value[0] === x || x !== x) return x;
  if (Math.abs(value[0]) > Math.abs(x)) bits[0]--;
  bits[0] |= 1;
  return value[0];
}
