/** f16 and bf16 against exact arithmetic: every value, every midpoint between neighbours, doubles beside them. */
import { bf16BitsToF32, f16BitsToF32, f32ToBf16Bits, f32ToF16Bits } from '../../../lib/core/half';
import { roundToOdd } from '../../../lib/core/half';

interface Format {
  decode: (bits: number) => number;
  encode: (x: number) => number;
  mantissa: number;
  bias: number;
  infinity: number;
}
const FORMATS: Record<string, Format> = {
  f16: { decode: f16BitsToF32, encode: f32ToF16Bits, mantissa: 10, bias: 15, infinity: 0x7c00 },
  bf16: { decode: bf16BitsToF32, encode: f32ToBf16Bits, mantissa: 7, bias: 127, infinity: 0x7f80 },
};

/** The value of finite, positive bits from the definition of the format. */
function valueOf({ mantissa, bias }: Format, bits: number): number {
  const exponent = bits >> mantissa;
  const fraction = (bits & ((1 << mantissa) - 1)) / (1 << mantissa);
  return exponent === 0 ? fraction * 2 ** (1 - bias) : (1 + fraction) * 2 ** (exponent - bias);
}

describe.each(Object.entries(FORMATS))('%s', (_, format) => {
  const { decode, encode, infinity } = format;
  const encodeDouble = (x: number) => encode(roundToOdd(x));

  test('every value is decoded by its definition and comes back as its bits', () => {
    let wrong = 0;
    for (let bits = 0; bits < infinity; bits++) {
      const value = valueOf(format, bits);
      if (decode(bits) !== value || decode(bits | 0x8000) !== -value) wrong++;
      if (encode(value) !== bits || encode(-value) !== (bits | 0x8000)) wrong++;
    }
    expect(wrong).toBe(0);
  });

  test('midpoints go to the even neighbour, doubles beside them to the nearer one', () => {
    let wrong = 0;
    for (let bits = 0; bits < infinity - 1; bits++) {
      const middle = (decode(bits) + decode(bits + 1)) / 2;
      const even = bits + (bits & 1);
      if (encodeDouble(middle) !== even || encodeDouble(-middle) !== (even | 0x8000)) wrong++;
      if (encodeDouble(middle * (1 + 2 ** -50)) !== bits + 1) wrong++;
      if (encodeDouble(middle * (1 - 2 ** -50)) !== bits) wrong++;
    }
    expect(wrong).toBe(0);
  });

  test('zeros keep their sign, what is too large becomes Infinity, NaN stays NaN', () => {
    expect(Object.is(decode(encode(-0)), -0)).toBe(true);
    const largest = decode(infinity - 1);
    const beyond = largest + (largest - decode(infinity - 2)) / 2;
    expect(encodeDouble(beyond)).toBe(infinity);
    expect(encodeDouble(beyond * (1 - 2 ** -50))).toBe(infinity - 1);
    for (const x of [1e300, Infinity]) {
      expect(encodeDouble(x)).toBe(infinity);
      expect(encodeDouble(-x)).toBe(infinity | 0x8000);
    }
    expect(encodeDouble(5e-324)).toBe(0);
    expect(decode(encode(NaN))).toBeNaN();
    for (let bits = infinity + 1; bits < 0x8000; bits++) {
      if (!Number.isNaN(decode(bits)) || !Number.isNaN(decode(encode(decode(bits))))) {
        throw new Error(`bits ${bits} are no NaN`);
      }
    }
  });
});

test('roundToOdd leaves f32 values alone and makes every other odd', () => {
  const bits = new Uint32Array(1);
  const float = new Float32Array(bits.buffer);
  for (const x of [0, -0, 1, 0.5, 2 ** -149, Infinity, -Infinity]) {
    expect(Object.is(roundToOdd(x), x)).toBe(true);
  }
  for (const x of [0.1, -0.1, 1 / 3, 1e300, 1e-300, -1e300, 1 + 2 ** -40]) {
    float[0] = roundToOdd(x);
    expect(bits[0] & 1).toBe(1);
    expect(Math.sign(float[0])).toBe(Math.sign(x));
  }
});
