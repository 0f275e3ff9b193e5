/** Conversions between f32, f16 and bf16: every bit pattern, and every kind of rounding. */
import { getBackend } from '../../lib/backend';
import { decodeSmall, encodeSmall, type FloatName } from '../support/numbers';
import { Random } from '../support/random';
import { samples } from '../support/samples';

const backend = getBackend();
const f32 = (x: ArrayLike<number>) => Float32Array.from(x);

describe.each(['f16', 'bf16'] as const)('convert f32 to %s', (dtype) => {
  const convert = (values: ArrayLike<number>, fromDtype: FloatName, toDtype: FloatName) => {
    const from = fromDtype === 'f32' ? f32(values) : Uint16Array.from(values);
    const to = toDtype === 'f32' ? new Float32Array(from.length) : new Uint16Array(from.length);
    backend.convert({ from, fromDtype, to, toDtype, count: from.length });
    return to;
  };
  const isNaNBits = (bits: number) => Number.isNaN(decodeSmall(bits, dtype));

  test('every 16-bit pattern becomes its exact value, and returns', () => {
    const all = Uint16Array.from({ length: 65536 }, (_, i) => i);
    const wide = convert(all, dtype, 'f32');
    const back = convert(wide, 'f32', dtype);
    for (let i = 0; i < all.length; i++) {
      const value = decodeSmall(i, dtype);
      if (!Object.is(wide[i], value)) throw new Error(`bits ${i} became ${wide[i]}, not ${value}`);
      const returned = Number.isNaN(value) ? isNaNBits(back[i]) : back[i] === i;
      if (!returned) throw new Error(`bits ${i} returned as ${back[i]}`);
    }
  });

  test('midpoints go to even, their neighbours to the nearer side', () => {
    const values: number[] = [];
    for (let i = 0; i < 0x7fff; i += 7) {
      const [low, high] = [decodeSmall(i, dtype), decodeSmall(i + 1, dtype)];
      if (!Number.isFinite(low + high)) continue;
      const middle = Math.fround((low + high) / 2);
      const bits = new Uint32Array(Float32Array.of(middle).buffer)[0];
      const near = new Float32Array(Uint32Array.of(bits - 1, bits, bits + 1).buffer);
      values.push(...near, ...near.map((x) => -x));
    }
    const to = convert(values, 'f32', dtype);
    values.forEach((x, i) => {
      if (to[i] !== encodeSmall(x, dtype))
        throw new Error(`${x} became ${to[i]}, not ${encodeSmall(x, dtype)}`);
    });
  });

  test('overflow, denormals, infinities and NaN', () => {
    const values = [
      65504,
      65519.99,
      65520,
      65536,
      1e10,
      3.4e38,
      3.3895314e38,
      3.3961775e38,
      3.4028235e38,
      Infinity,
      -Infinity,
      2 ** -14,
      2 ** -24,
      2 ** -25,
      2 ** -25 * 1.0001,
      2 ** -26,
      6.1e-5,
      2 ** -126,
      2 ** -133,
      2 ** -134,
      2 ** -149,
      0,
      -0,
    ].map(Math.fround);
    const to = convert([...values, ...values.map((x) => -x)], 'f32', dtype);
    [...values, ...values.map((x) => -x)].forEach((x, i) =>
      expect([x, to[i]]).toEqual([x, encodeSmall(x, dtype)]),
    );
    // Every kind of NaN, the ones whose payload lies in the lost bits too.
    const nans = new Float32Array(
      Uint32Array.of(0x7fc00000, 0x7f800001, 0xff800001, 0x7fffffff, 0xffffffff, 0x7fc00001).buffer,
    );
    for (const bits of convert(nans, 'f32', dtype)) expect(isNaNBits(bits)).toBe(true);
  });

  test.each([0, 1, 2, 7, 15, 17, 33, 100])('%i elements, none beyond', (count) => {
    const random = new Random(count);
    for (let n = 0; n < samples(5); n++) {
      const from = f32(random.normals(count, 1000));
      const to = new Uint16Array(count + 8).fill(77);
      backend.convert({ from, fromDtype: 'f32', to, toDtype: dtype, count });
      from.forEach((x, i) => expect(to[i]).toBe(encodeSmall(x, dtype)));
      expect(to.subarray(count).every((x) => x === 77)).toBe(true);
    }
  });

  test('between the 16-bit dtypes', () => {
    const other = dtype === 'f16' ? 'bf16' : 'f16';
    const from = Array.from({ length: 65536 }, (_, i) => i).filter((i) => !isNaNBits(i));
    const to = convert(from, dtype, other);
    from.forEach((bits, i) => {
      const expected = encodeSmall(decodeSmall(bits, dtype), other);
      if (to[i] !== expected)
        throw new Error(`${decodeSmall(bits, dtype)} became ${to[i]}, not ${expected}`);
    });
  });
});
