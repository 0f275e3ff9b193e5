/**
 * MXFP4 (OCP Microscaling), as Hugging Face stores it: blocks of 32 numbers, two in a byte, the first in its low bits. A number
 * has a sign, two bits of exponent and one of mantissa, and is multiplied by 2^(scale - 127), scale a byte of the block's.
 */
import { GqaError } from '../core/errors';

export const MXFP4_BLOCK = 32;
export const MXFP4_BLOCK_BYTES = 16;

/** Twice the numbers, by their four bits. */
const DOUBLED = [0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12];
/** Of each byte the two, as the two bytes of a little-endian u16. */
const PAIRS = Uint16Array.from({ length: 256 }, (_, byte) => {
  const [low, high] = [DOUBLED[byte & 15], DOUBLED[byte >> 4]];
  return (low & 255) | ((high & 255) << 8);
});
/** A block of Q8_0 in u16: the f16 that its 32 signed bytes are multiplied by, and these. */
const Q8_WORDS = 17;
/** Half a scale must be a power of two that f16 has. */
const MIN_SCALE = 128 - 24;
const MAX_SCALE = 128 + 15;

/**
 * The same numbers as blocks of GGUF's Q8_0: twice each is a whole number, half the scale an f16.
 * @param blocks [count, 16] @param scales [count]
 * @throws GqaError UNSUPPORTED_MODEL where a scale is beyond f16
 */
export function mxfp4AsQ8_0(name: string, blocks: Uint8Array, scales: Uint8Array): Uint8Array {
  const out = new Uint16Array(scales.length * Q8_WORDS);
  for (let block = 0; block < scales.length; block++) {
    const at = block * Q8_WORDS;
    out[at] = halfOf(name, scales[block]);
    const from = block * MXFP4_BLOCK_BYTES;
    for (let i = 0; i < MXFP4_BLOCK_BYTES; i++) out[at + 1 + i] = PAIRS[blocks[from + i]];
  }
  return new Uint8Array(out.buffer);
}

/** 2^(scale - 128) in the bits of f16. */
function halfOf(name: string, scale: number): number {
  if (scale < MIN_SCALE || scale > MAX_SCALE) {
    const expected = `scales of ${MIN_SCALE} to ${MAX_SCALE}`;
    throw new GqaError('UNSUPPORTED_MODEL', `${name} has a scale of ${scale}`, {
      argument: name,
      expected,
      received: String(scale),
    });
  }
  const exponent = scale - 128;
  return exponent < -14 ? 2 ** (exponent + 24) : (exponent + 15) << 10;
}
