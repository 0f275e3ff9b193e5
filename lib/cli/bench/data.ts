/**
 * Random inputs that every dtype holds exactly, and their values as doubles. Both are written out here, bit by bit, so
 * that a check of the product's results shares nothing with the product.
 *
 * A value is +-(1 + m / 2^bits) * 2^e with e one of -2, -1, 0 plus `exponent`: variance about 4^exponent.
 */
import { DTYPE_BYTES, type FloatData, type FloatDType } from '../../core/dtype';

/** Where each 16-bit format keeps its mantissa, and the bias of its exponent. */
const FORMAT = {
  f16: { mantissaBits: 10, exponentBits: 5, bias: 15 },
  bf16: { mantissaBits: 7, exponentBits: 8, bias: 127 },
  f32: { mantissaBits: 23, exponentBits: 8, bias: 127 },
} as const;

/** Marsaglia's xorshift32: quick, and good enough to keep softmax from degenerating. */
function xorshift(seed: number): () => number {
  let state = seed | 1;
  return () => {
    state ^= state << 13;
    state ^= state >>> 17;
    state ^= state << 5;
    return state >>> 0;
  };
}

export function randomData(
  dtype: FloatDType,
  count: number,
  seed: number,
  exponent = 0,
): FloatData {
  const { mantissaBits, exponentBits, bias } = FORMAT[dtype];
  const buffer = new ArrayBuffer(count * DTYPE_BYTES[dtype]);
  const bits = dtype === 'f32' ? new Uint32Array(buffer) : new Uint16Array(buffer);
  const next = xorshift(Math.imul(seed, 0x9e3779b9));
  for (let i = 0; i < count; i++) {
    const random = next();
    const sign = random & 1;
    const biased = bias + exponent - ((random >>> 1) % 3);
    const mantissa = random >>> (32 - mantissaBits);
    bits[i] = (((sign << exponentBits) | biased) << mantissaBits) | mantissa;
  }
  return dtype === 'f32' ? new Float32Array(buffer) : new Uint16Array(buffer);
}

/** The value of one stored element; the formats' infinities and subnormals included. */
export function valueAt(data: FloatData, dtype: FloatDType, index: number): number {
  if (dtype === 'f32') return data[index];
  const { mantissaBits, exponentBits, bias } = FORMAT[dtype];
  const bits = data[index];
  const sign = bits >>> (mantissaBits + exponentBits) ? -1 : 1;
  const biased = (bits >>> mantissaBits) & ((1 << exponentBits) - 1);
  const fraction = (bits & ((1 << mantissaBits) - 1)) / 2 ** mantissaBits;
  if (biased === (1 << exponentBits) - 1) return fraction === 0 ? sign * Infinity : NaN;
  if (biased === 0) return sign * fraction * 2 ** (1 - bias);
  return sign * (1 + fraction) * 2 ** (biased - bias);
}
