/** GGUF's blocks of 32 values that weights may stay in, widened to f32. Scales and minimums are f16, little-endian. */
import type { BlockDType } from './dtype';
import { f16BitsToF32 } from './half';

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
