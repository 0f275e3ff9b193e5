/**
 * ggml's quantised blocks to f32. A block holds 32 values (the K types: 256), little-endian, scales in f16.
 * Each function takes whole blocks and fills out, 32 (256) values a block. Products of a scale and a quant fit in 24
 * bits, so the doubles here round once, on the store, to the very bits of f32 arithmetic.
 */
import { halfAt as half } from '../core/blocks';

export { dequantizeQ4_0, dequantizeQ4_1, dequantizeQ8_0 } from '../core/blocks';

export type Dequantize = (blocks: Uint8Array, out: Float32Array) => void;

/** { d f16, h u1[32], q u4[32] }: y[i] = d (q[i] + 16 h[i] - 16) */
export function dequantizeQ5_0(blocks: Uint8Array, out: Float32Array): void {
  for (let b = 0, y = 0; y < out.length; b += 22, y += 32) {
    const d = half(blocks, b);
    for (let i = 0; i < 16; i++) {
      const q = blocks[b + 6 + i];
      out[y + i] = d * (((q & 15) | fifthBit(blocks, b + 2, i)) - 16);
      out[y + i + 16] = d * (((q >> 4) | fifthBit(blocks, b + 2, i + 16)) - 16);
    }
  }
}

/** { d f16, m f16, h u1[32], q u4[32] }: y[i] = d (q[i] + 16 h[i]) + m */
export function dequantizeQ5_1(blocks: Uint8Array, out: Float32Array): void {
  for (let b = 0, y = 0; y < out.length; b += 24, y += 32) {
    const d = half(blocks, b);
    const m = half(blocks, b + 2);
    for (let i = 0; i < 16; i++) {
      const q = blocks[b + 8 + i];
      out[y + i] = d * ((q & 15) | fifthBit(blocks, b + 4, i)) + m;
      out[y + i + 16] = d * ((q >> 4) | fifthBit(blocks, b + 4, i + 16)) + m;
    }
  }
}

/** 16 where bit i of the 32 at `at` is set. */
function fifthBit(bytes: Uint8Array, at: number, i: number): number {
  return ((bytes[at + (i >> 3)] >> (i & 7)) & 1) << 4;
}

/**
 * { s u4[16], m u4[16] (in the high halves), q u2[256], d f16, dmin f16 }, 16 runs r of 16 values:
 * y[i] = d s[r] q[i] - dmin m[r]. Byte l of a half's 32 holds q at l, l + 32, l + 64 and l + 96.
 */
export function dequantizeQ2_K(blocks: Uint8Array, out: Float32Array): void {
  for (let b = 0, y = 0; y < out.length; b += 84, y += 256) {
    const d = half(blocks, b + 80);
    const dmin = half(blocks, b + 82);
    for (let run = 0; run < 16; run++) {
      const scale = d * (blocks[b + run] & 15);
      const min = dmin * (blocks[b + run] >> 4);
      const q = b + 16 + 32 * (run >> 3) + 16 * (run & 1);
      const shift = run & 6;
      for (let i = 0; i < 16; i++) {
        out[y + 16 * run + i] = scale * ((blocks[q + i] >> shift) & 3) - min;
      }
    }
  }
}

/**
 * { h u1[256], q u2[256], s u6[16], d f16 }, 16 runs r of 16 values: y[i] = d (s[r] - 32) (q[i] + 4 h[i] - 4).
 * q as in Q2_K; h[i] is bit (i >> 5) of byte (i & 31); the scales' low 4 bits lie in 8 bytes, their high 2 in 4.
 */
export function dequantizeQ3_K(blocks: Uint8Array, out: Float32Array): void {
  for (let b = 0, y = 0; y < out.length; b += 110, y += 256) {
    const d = half(blocks, b + 108);
    for (let run = 0; run < 16; run++) {
      const low = (blocks[b + 96 + (run & 7)] >> (4 * (run >> 3))) & 15;
      const high = (blocks[b + 104 + (run & 3)] >> (2 * (run >> 2))) & 3;
      const scale = d * ((low | (high << 4)) - 32);
      const q = b + 32 + 32 * (run >> 3) + 16 * (run & 1);
      const h = b + 16 * (run & 1);
      const shift = run & 6;
      const bit = run >> 1;
      for (let i = 0; i < 16; i++) {
        const value = ((blocks[q + i] >> shift) & 3) | (((blocks[h + i] >> bit) & 1) << 2);
        out[y + 16 * run + i] = scale * (value - 4);
      }
    }
  }
}

/** The 6-bit scale (offset 0) or minimum (offset 4) of run r of 8, packed in 12 bytes, of Q4_K and Q5_K. */
function sixBits(bytes: Uint8Array, at: number, run: number, offset: 0 | 4): number {
  if (run < 4) return bytes[at + offset + run] & 63;
  const low = (bytes[at + 4 + run] >> offset) & 15;
  return low | ((bytes[at + offset + run - 4] >> 6) << 4);
}

/**
 * { d f16, dmin f16, s u6[8] and m u6[8] in 12 bytes, q u4[256] }, 8 runs r of 32 values: y[i] = d s[r] q[i] - dmin m[r].
 * Each 32 bytes of q hold a run in their low halves and the next in their high ones.
 */
export function dequantizeQ4_K(blocks: Uint8Array, out: Float32Array): void {
  for (let b = 0, y = 0; y < out.length; b += 144, y += 256) {
    const d = half(blocks, b);
    const dmin = half(blocks, b + 2);
    for (let run = 0; run < 8; run++) {
      const scale = d * sixBits(blocks, b + 4, run, 0);
      const min = dmin * sixBits(blocks, b + 4, run, 4);
      const q = b + 16 + 32 * (run >> 1);
      const shift = 4 * (run & 1);
      for (let i = 0; i < 32; i++) {
        out[y + 32 * run + i] = scale * ((blocks[q + i] >> shift) & 15) - min;
      }
    }
  }
}

/** Q4_K with a fifth bit: { d, dmin, s and m, h u1[256], q u4[256] }, h of run r in bit r of its 32 bytes. */
export function dequantizeQ5_K(blocks: Uint8Array, out: Float32Array): void {
  for (let b = 0, y = 0; y < out.length; b += 176, y += 256) {
    const d = half(blocks, b);
    const dmin = half(blocks, b + 2);
    for (let run = 0; run < 8; run++) {
      const scale = d * sixBits(blocks, b + 4, run, 0);
      const min = dmin * sixBits(blocks, b + 4, run, 4);
      const q = b + 48 + 32 * (run >> 1);
      const shift = 4 * (run & 1);
      for (let i = 0; i < 32; i++) {
        const fifth = ((blocks[b + 16 + i] >> run) & 1) << 4;
        out[y + 32 * run + i] = scale * (((blocks[q + i] >> shift) & 15) | fifth) - min;
      }
    }
  }
}

/**
 * { ql u4[256], qh u2[256], s i8[16], d f16 }, 16 runs r of 16 values: y[i] = d s[r] (ql[i] + 16 qh[i] - 32).
 * In each half of 128: ql of quarter c lies in bytes 32 (c & 1) + l, low halves for c < 2; qh in bits 2c of byte l.
 */
export function dequantizeQ6_K(blocks: Uint8Array, out: Float32Array): void {
  for (let b = 0, y = 0; y < out.length; b += 210, y += 256) {
    const d = half(blocks, b + 208);
    for (let run = 0; run < 16; run++) {
      const scale = d * ((blocks[b + 192 + run] << 24) >> 24);
      const side = run >> 3;
      const quarter = (run >> 1) & 3;
      const low = b + 64 * side + 32 * (quarter & 1) + 16 * (run & 1);
      const high = b + 128 + 32 * side + 16 * (run & 1);
      for (let i = 0; i < 16; i++) {
        const ql = (blocks[low + i] >> (4 * (quarter >> 1))) & 15;
        const qh = (blocks[high + i] >> (2 * quarter)) & 3;
        out[y + 16 * run + i] = scale * ((ql | (qh << 4)) - 32);
      }
    }
  }
}

/** Twice the values of MXFP4's 4-bit floats (2 bits of exponent, 1 of mantissa), sign in the highest bit. */
const FP4_DOUBLED = [0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12];

/** { e u8, q fp4[32] }, q[i] in the low halves and q[i + 16] in the high ones: y[i] = 2^(e - 127) q[i] */
export function dequantizeMXFP4(blocks: Uint8Array, out: Float32Array): void {
  for (let b = 0, y = 0; y < out.length; b += 17, y += 32) {
    const half = 2 ** (blocks[b] - 128);
    for (let i = 0; i < 16; i++) {
      const q = blocks[b + 1 + i];
      out[y + i] = half * FP4_DOUBLED[q & 15];
      out[y + i + 16] = half * FP4_DOUBLED[q >> 4];
    }
  }
}
