/**
 * Scalar conversion between numbers and the two 16-bit floats, round to nearest, ties to even.
 *
 * f16: 1 sign, 5 exponent, 10 mantissa bits, subnormals down to 2^-24. bf16: the upper half of an f32.
 * Overflow becomes Infinity, NaN stays NaN, and a double is rounded once, not first to f32 and then again.
 */
const float = new Float32Array(1);
const bits = new Uint32Array(float.buffer);

const SIGN = 0x80000000;
const INFINITY_F32 = 0x7f800000;
/** 2^16, the first f32 whose exponent f16 lacks. */
const F16_OVERFLOW = 0x47800000;
/** 2^-14, the smallest normal f16. */
const F16_MIN_NORMAL = 0x38800000;
/** 2^-25, half of the smallest f16: it and everything below rounds to zero. */
const F16_HALF_MIN = 0x33000000;
/** What the exponent biases differ by, in f32 bits: (127 - 15) << 23. */
const F16_BIAS = 0x38000000;

/**
 * f32 bits of x, rounded to odd: where x is no f32, towards zero with the last bit set. An odd last bit is never a tie
 * for a narrower format, so rounding the result again is the same as rounding x once.
 */
function oddBits(x: number): number {
  float[0] = x;
  const rounded = float[0];
  if (rounded === x || x !== x) return bits[0];
  return (Math.abs(rounded) > Math.abs(x) ? bits[0] - 1 : bits[0]) | 1;
}

/** Nearest f16 of a number (f32 or double), as its 16 bits. */
export function toF16(x: number): number {
  const all = oddBits(x) >>> 0;
  const sign = (all & SIGN) >>> 16;
  const magnitude = all & ~SIGN;
  if (magnitude >= INFINITY_F32) {
    const quietNaN = 0x200 | ((magnitude >>> 13) & 0x3ff);
    return sign | 0x7c00 | (magnitude > INFINITY_F32 ? quietNaN : 0);
  }
  if (magnitude >= F16_OVERFLOW) return sign | 0x7c00;
  if (magnitude >= F16_MIN_NORMAL) {
    // A carry out of the mantissa lands in the exponent, where it belongs.
    return sign | ((magnitude - F16_BIAS + 0xfff + ((magnitude >>> 13) & 1)) >>> 13);
  }
  if (magnitude <= F16_HALF_MIN) return sign;
  const shift = 126 - (magnitude >>> 23);
  const mantissa = (magnitude & 0x7fffff) | 0x800000;
  const half = 1 << (shift - 1);
  return sign | ((mantissa + half - 1 + ((mantissa >>> shift) & 1)) >>> shift);
}

/** The number that 16 bits of f16 stand for. */
export function fromF16(half: number): number {
  const sign = (half & 0x8000) << 16;
  const magnitude = half & 0x7fff;
  if (magnitude >= 0x7c00) {
    bits[0] = sign | INFINITY_F32 | ((magnitude & 0x3ff) << 13);
    return float[0];
  }
  if (magnitude < 0x400) return sign === 0 ? magnitude * 2 ** -24 : -magnitude * 2 ** -24;
  bits[0] = sign | ((magnitude << 13) + F16_BIAS);
  return float[0];
}

/** Nearest bf16 of a number (f32 or double), as its 16 bits. */
export function toBf16(x: number): number {
  const all = oddBits(x) >>> 0;
  if ((all & ~SIGN) > INFINITY_F32) return (all >>> 16) | 0x40;
  return (all + 0x7fff + ((all >>> 16) & 1)) >>> 16;
}

/** The number that 16 bits of bf16 stand for. */
export function fromBf16(half: number): number {
  bits[0] = half << 16;
  return float[0];
}
