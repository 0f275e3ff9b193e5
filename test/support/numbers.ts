/**
 * f16 and bf16 from their definitions, for the oracle's side of a comparison: value = sign * significand * 2^exponent.
 * Shares no code with the package.
 */
// Globals are slow to reach from within jest: taken once.
const { abs, floor, max, min } = Math;
const { isNaN } = Number;

export type SmallFloat = 'f16' | 'bf16';
export type FloatName = 'f32' | SmallFloat;
export type Numbers = ArrayLike<number>;

interface Format {
  /** Bits of the significand after the point, and of the exponent. */
  fraction: number;
  exponent: number;
  /** Exponent of the smallest normal value. */
  smallest: number;
  /** Bit pattern of Infinity. */
  infinity: number;
}

const FORMATS: Record<SmallFloat, Format> = {
  f16: { fraction: 10, exponent: 5, smallest: -14, infinity: 0x7c00 },
  bf16: { fraction: 7, exponent: 8, smallest: -126, infinity: 0x7f80 },
};

/** The value of a bit pattern, by the format's definition. */
function decode(bits: number, { fraction, exponent, smallest }: Format): number {
  const sign = bits >= 2 ** (fraction + exponent) ? -1 : 1;
  const significand = bits % 2 ** fraction;
  const power = floor(bits / 2 ** fraction) % 2 ** exponent;
  if (power === 2 ** exponent - 1) return significand === 0 ? sign * Infinity : NaN;
  if (power === 0) return sign * significand * 2 ** (smallest - fraction);
  return sign * (2 ** fraction + significand) * 2 ** (smallest + power - 1 - fraction);
}

/** The value of each of the 65,536 patterns. */
const VALUES: Record<SmallFloat, Float64Array> = {
  f16: Float64Array.from({ length: 65536 }, (_, bits) => decode(bits, FORMATS.f16)),
  bf16: Float64Array.from({ length: 65536 }, (_, bits) => decode(bits, FORMATS.bf16)),
};

export function decodeSmall(bits: number, name: SmallFloat): number {
  return VALUES[name][bits];
}

const scratch = new Float64Array(1);
const words = new Uint32Array(scratch.buffer);

/** floor(log2(x)) of a positive normal double, exactly: its exponent field. */
function exponentOf(x: number): number {
  scratch[0] = x;
  return ((words[1] >>> 20) & 0x7ff) - 1023;
}

/** Bits of the nearest value, ties to even; beyond the largest value Infinity; NaN as the quiet NaN of positive sign. */
export function encodeSmall(value: number, name: SmallFloat): number {
  const { fraction, smallest, infinity } = FORMATS[name];
  if (isNaN(value)) return infinity + (1 << (fraction - 1));
  const sign = value < 0 || 1 / value < 0 ? 32768 : 0;
  const magnitude = abs(value);
  if (magnitude === Infinity) return sign + infinity;
  const power = max(exponentOf(magnitude), smallest);
  // In units of the last place. A carry out of the fraction runs into the exponent field, as it should.
  const units = roundHalfEven(magnitude * powerOfTwo(fraction - power));
  return sign + min((power - smallest) * (1 << fraction) + units, infinity);
}

const POWERS = Float64Array.from({ length: 512 }, (_, i) => 2 ** (i - 256));

/** 2^n for -256 <= n < 256. */
function powerOfTwo(n: number): number {
  return POWERS[n + 256];
}

function roundHalfEven(x: number): number {
  const below = floor(x);
  const rest = x - below;
  if (rest !== 0.5) return rest < 0.5 ? below : below + 1;
  return below % 2 === 0 ? below : below + 1;
}

/** The value as the dtype holds it. */
export function roundToDtype(value: number, dtype: FloatName): number {
  return dtype === 'f32' ? Math.fround(value) : decodeSmall(encodeSmall(value, dtype), dtype);
}
