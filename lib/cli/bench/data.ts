/**
 * Random inputs that every dtype holds exactly, and their values as doubles. Both are written out here, bit by bit, so
 * that a check of the product's results shares nothing with the product.
 *
 * A value is +-(1 + m / 2^bits) * 2^e with e one of -2, -1, 0 plus `exponent`: variance about 4^exponent.
 */
import {
  BLOCK_BYTES,
  BLOCK_VALUES,
  DTYPE_BYTES,
  isBlockDType,
  type BlockDType,
  type FloatData,
  type FloatDType,
  type WeightData,
  type WeightDType,
} from '../../core/dtype';

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

/** Exponents of the blocks' scales: values are then of about 1. */
const SCALE_EXPONENT: Readonly<Record<BlockDType, number>> = { q8_0: -6, q4_0: -2, q4_1: -2 };
const F16_MINUS_TWO = 0xc000;

/** Random GGUF blocks: any values, scales of one power of two, q4_1's minimum -2. */
function randomBlocks(dtype: BlockDType, count: number, seed: number): Uint8Array {
  const blockBytes = BLOCK_BYTES[dtype];
  const bytes = new Uint8Array((count / BLOCK_VALUES) * blockBytes);
  const next = xorshift(Math.imul(seed, 0x9e3779b9));
  for (let i = 0; i < bytes.length; i++) bytes[i] = next() >>> 24;
  const { bias, mantissaBits } = FORMAT.f16;
  const exponent = (bias + SCALE_EXPONENT[dtype]) << mantissaBits;
  const view = new DataView(bytes.buffer);
  for (let at = 0; at < bytes.length; at += blockBytes) {
    view.setUint16(at, exponent | (next() >>> (32 - mantissaBits)), true);
    if (dtype === 'q4_1') view.setUint16(at + 2, F16_MINUS_TWO, true);
  }
  return bytes;
}

/** `count` random weights, of whole blocks where the dtype is one of GGUF's. */
export function randomWeights(dtype: WeightDType, count: number, seed: number): WeightData {
  return isBlockDType(dtype) ? randomBlocks(dtype, count, seed) : randomData(dtype, count, seed);
}

function floatValue(bits: number, dtype: 'f16' | 'bf16'): number {
  const { mantissaBits, exponentBits, bias } = FORMAT[dtype];
  const sign = bits >>> (mantissaBits + exponentBits) ? -1 : 1;
  const biased = (bits >>> mantissaBits) & ((1 << exponentBits) - 1);
  const fraction = (bits & ((1 << mantissaBits) - 1)) / 2 ** mantissaBits;
  if (biased === (1 << exponentBits) - 1) return fraction === 0 ? sign * Infinity : NaN;
  if (biased === 0) return sign * fraction * 2 ** (1 - bias);
  return sign * (1 + fraction) * 2 ** (biased - bias);
}

/** GGUF's blocks: f16 scale (and minimum), then 32 signed bytes, or 16 bytes whose low halves come first. */
function blockValue(bytes: WeightData, dtype: BlockDType, index: number): number {
  const at = Math.floor(index / BLOCK_VALUES) * BLOCK_BYTES[dtype];
  const half = (from: number) => floatValue(bytes[from] | (bytes[from + 1] << 8), 'f16');
  const i = index % BLOCK_VALUES;
  const scale = half(at);
  if (dtype === 'q8_0') {
    const byte = bytes[at + 2 + i];
    return scale * (byte < 128 ? byte : byte - 256);
  }
  const packed = bytes[at + (dtype === 'q4_1' ? 4 : 2) + (i % 16)];
  const nibble = i < 16 ? packed % 16 : Math.floor(packed / 16);
  return dtype === 'q4_1' ? scale * nibble + half(at + 2) : scale * (nibble - 8);
}

/** The value of one stored element; the formats' infinities and subnormals included. */
export function valueAt(data: WeightData, dtype: WeightDType, index: number): number {
  if (dtype === 'f32') return data[index];
  return isBlockDType(dtype) ? blockValue(data, dtype, index) : floatValue(data[index], dtype);
}
