/**
 * f16 and bf16 from their definitions, for the oracle's side of a comparison: value = sign * significand * 2^exponent.
 * Shares no code with the package.
 */
export type SmallFloat = 'f16' | 'bf16';
export type FloatName = 'f32' | SmallFloat;
export type Numbers = ArrayLike<number>;

interface Format {
  /** Bits of the significand after the point, and of the exponent. */
  fraction: number;
  exponent: number;
}

const FORMATS: Record<SmallFloat, Format> = {
  f16: { fraction: 10, exponent: 5 },
  bf16: { fraction: 7, exponent: 8 },
};

/** The value of a bit pattern, by the format's definition. */
function decode(bits: number, { fraction, exponent }: Format): number {
  const sign = bits >= 2 ** (fraction + exponent) ? -1 : 1;
  const significand = bits % 2 ** fraction;
  const power = Math.floor(bits / 2 ** fraction) % 2 ** exponent;
  if (power === 2 ** exponent - 1) return significand === 0 ? sign * Infinity : NaN;
  const smallest = 2 - 2 ** (exponent - 1);
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
  const { fraction, exponent } = FORMATS[name];
  const infinity = (2 ** exponent - 1) * 2 ** fraction;
  if (Number.isNaN(value)) return infinity + 2 ** (fraction - 1);
  const sign = value < 0 || Object.is(value, -0) ? 32768 : 0;
  const magnitude = Math.abs(value);
  if (magnitude === Infinity) return sign + infinity;
  const smallest = 2 - 2 ** (exponent - 1);
  const power = Math.max(exponentOf(magnitude), smallest);
  // In units of the last place. A carry out of the fraction runs into the exponent field, as it should.
  const units = roundHalfEven(magnitude * 2 ** (fraction - power));
  return sign + Math.min((power - smallest) * 2 ** fraction + units, infinity);
}

function roundHalfEven(x: number): number {
  const floor = Math.floor(x);
  const rest = x - floor;
  if (rest !== 0.5) return rest < 0.5 ? floor : floor + 1;
  return floor % 2 === 0 ? floor : floor + 1;
}

/** The value as the dtype holds it. */
export function roundToDtype(value: number, dtype: FloatName): number {
  return dtype === 'f32' ? Math.fround(value) : decodeSmall(encodeSmall(value, dtype), dtype);
}
