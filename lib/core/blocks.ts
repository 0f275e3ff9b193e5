/**
 * GGUF's blocks of 32 values that weights and caches may stay in, to and from f32. Scales and minimums are f16,
 * little-endian. Quantising is f32 arithmetic (Math.fround), so that every backend makes the same bits.
 */
import type { BlockDType } from './dtype';
import { BLOCK_BYTES, BLOCK_VALUES } from './dtype';
import { f16BitsToF32, f32ToF16Bits } from './half';

export function halfAt(bytes: Uint8Array, at: number): number {
  return f16BitsToF32(bytes[at] | (bytes[at + 1] << 8));
}

/** { d f16, q i8[32] }: y[i] = d q[i] */
export function dequantizeQ8_0(blocks: Uint8Array, out: Float32Array): void {
  for (let b = 0, y = 0; y < out.length; b += 34, y += 32) {
    const d = halfAt(blocks, b);
    for (let i = 0; i < 32; i++) out[y + i] = d * ((blocks[b + 2 + i] << 24) >> 24);
  }
}

/** { d f16, q u4[32] }, q[i] in the low halves and q[i + 16] in the high ones: y[i] = d (q[i] - 8) */
export function dequantizeQ4_0(blocks: Uint8Array, out: Float32Array): void {
  for (let b = 0, y = 0; y < out.length; b += 18, y += 32) {
    const d = halfAt(blocks, b);
    for (let i = 0; i < 16; i++) {
      const q = blocks[b + 2 + i];
      out[y + i] = d * ((q & 15) - 8);
      out[y + i + 16] = d * ((q >> 4) - 8);
    }
  }
}

/** { d f16, m f16, q u4[32] }: y[i] = d q[i] + m */
export function dequantizeQ4_1(blocks: Uint8Array, out: Float32Array): void {
  for (let b = 0, y = 0; y < out.length; b += 20, y += 32) {
    const d = halfAt(blocks, b);
    const m = halfAt(blocks, b + 2);
    for (let i = 0; i < 16; i++) {
      const q = blocks[b + 4 + i];
      out[y + i] = d * (q & 15) + m;
      out[y + i + 16] = d * (q >> 4) + m;
    }
  }
}

/** Whole blocks to 32 values each. */
export const DEQUANTIZE: Readonly<
  Record<BlockDType, (blocks: Uint8Array, out: Float32Array) => void>
> = { q8_0: dequantizeQ8_0, q4_0: dequantizeQ4_0, q4_1: dequantizeQ4_1 };

function putHalf(bytes: Uint8Array, at: number, value: number): number {
  const bits = f32ToF16Bits(value);
  bytes[at] = bits;
  bytes[at + 1] = bits >> 8;
  return f16BitsToF32(bits);
}

/** x / scale to the nearest integer, ties to even, within [low, high]. */
export function quantum(x: number, inverse: number, low: number, high: number): number {
  const scaled = Math.fround(x * inverse);
  const floor = Math.floor(scaled);
  const rest = scaled - floor;
  const up = rest > 0.5 || (rest === 0.5 && floor % 2 !== 0);
  return Math.min(high, Math.max(low, up ? floor + 1 : floor));
}

/** d = f16(max |x| / 127), q = x / d */
function quantizeQ8_0(x: Float32Array, from: number, bytes: Uint8Array, at: number): void {
  let most = 0;
  for (let i = 0; i < BLOCK_VALUES; i++) most = Math.max(most, Math.abs(x[from + i]));
  const scale = putHalf(bytes, at, Math.fround(most / 127));
  const inverse = scale > 0 ? Math.fround(1 / scale) : 0;
  for (let i = 0; i < BLOCK_VALUES; i++) {
    bytes[at + 2 + i] = quantum(x[from + i], inverse, -127, 127);
  }
}

/** m = f16(min x), d = f16((max x - m) / 15), q = (x - m) / d */
function quantizeQ4_1(x: Float32Array, from: number, bytes: Uint8Array, at: number): void {
  let least = Infinity;
  let most = -Infinity;
  for (let i = 0; i < BLOCK_VALUES; i++) {
    least = Math.min(least, x[from + i]);
    most = Math.max(most, x[from + i]);
  }
  const minimum = putHalf(bytes, at + 2, least + 0); // no minimum is -0
  const scale = putHalf(bytes, at, Math.fround(Math.fround(most - minimum) / 15));
  const inverse = scale === 0 ? 0 : Math.fround(1 / scale);
  const nibble = (i: number): number => quantum(Math.fround(x[from + i] - minimum), inverse, 0, 15);
  for (let i = 0; i < 16; i++) bytes[at + 4 + i] = nibble(i) | (nibble(i + 16) << 4);
}

/** x[0 .. length), length a multiple of 32, as blocks from `at` on. Values are finite and of QUANTISED_LIMIT at most. */
export function quantizeRow(
  dtype: 'q8_0' | 'q4_1',
  x: Float32Array,
  length: number,
  bytes: Uint8Array,
  at: number,
): void {
  const quantize = dtype === 'q8_0' ? quantizeQ8_0 : quantizeQ4_1;
  for (let from = 0; from < length; from += BLOCK_VALUES, at += BLOCK_BYTES[dtype]) {
    quantize(x, from, bytes, at);
  }
}
