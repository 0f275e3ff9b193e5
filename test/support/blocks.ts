/** Random GGUF blocks, and their values as the tests' own reader of the format has them. */
import type { BlockDType } from '../../lib/core/dtype';
import { GGUF_TYPES, type GgufType } from './gguf';
import { encodeSmall } from './numbers';
import type { Random } from './random';

/** `count` blocks of 32 values of about 1: every pattern of bits, with sane scales and minimums. */
export function randomBlocks(
  random: Random,
  count: number,
  dtype: BlockDType,
): { bytes: Uint8Array; values: Float32Array } {
  const type = GGUF_TYPES[dtype.toUpperCase() as GgufType];
  const bytes = Uint8Array.from({ length: count * type.bytes }, () => random.int(0, 255));
  const values = new Float32Array(32 * count);
  const step = dtype === 'q8_0' ? 1 / 64 : 1 / 4;
  for (let b = 0; b < count; b++) {
    const block = new DataView(bytes.buffer, b * type.bytes, type.bytes);
    block.setUint16(0, encodeSmall(step * random.normal(), 'f16'), true);
    if (dtype === 'q4_1') block.setUint16(2, encodeSmall(random.normal(), 'f16'), true);
    type.decode(block, values, 32 * b);
  }
  return { bytes, values };
}
