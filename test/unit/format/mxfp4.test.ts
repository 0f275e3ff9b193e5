/** MXFP4 told as Q8_0: number for number, at every scale that f16 has. */
import { dequantizeQ8_0 } from '../../../lib/format/dequant';
import { mxfp4AsQ8_0 } from '../../../lib/format/mxfp4';

const NUMBERS = [0, 0.5, 1, 1.5, 2, 3, 4, 6, -0, -0.5, -1, -1.5, -2, -3, -4, -6];

test('every pair of numbers over every scale', () => {
  const bytes = Uint8Array.from({ length: 256 }, (_, i) => i);
  const scales = Array.from({ length: 40 }, (_, i) => 104 + i);
  for (const scale of scales) {
    const blocks = mxfp4AsQ8_0('experts', bytes, new Uint8Array(16).fill(scale));
    expect(blocks).toHaveLength(16 * 34);
    const found = new Float32Array(512);
    dequantizeQ8_0(blocks, found);
    const factor = 2 ** (scale - 127);
    const expected = [...bytes].flatMap((byte) => [
      NUMBERS[byte & 15] * factor,
      NUMBERS[byte >> 4] * factor,
    ]);
    expect([scale, found.every((x, i) => x === expected[i])]).toEqual([scale, true]);
  }
});

test.each([103, 144, 255])('a scale of %d is refused', (scale) => {
  expect(() => mxfp4AsQ8_0('experts', new Uint8Array(16), Uint8Array.of(scale))).toThrow(
    expect.objectContaining({ code: 'UNSUPPORTED_MODEL', argument: 'experts' }),
  );
});
