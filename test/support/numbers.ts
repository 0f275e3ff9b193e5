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

function bias(format: Format): number {
  return 2 ** (format.exponent - 1) - 1;
}

/** Bits of the nearest value, ties to even; beyond the largest value Infinity; NaN as the quiet NaN of positive sign. */
export function encodeSmall(value: number, name: SmallFloat): number {
  const format = FORMATS[name];
  const infinity = (2 ** format.exponent - 1) * 2 ** format.fraction;
  if (Number.isNaN(value)) return infinity + 2 ** (format.fraction - 1);
  const negative = value < 0 || Object.is(value, -0);
  const sign = negative ? 2 ** (format.fraction + format.exponent) : 0;
  const magnitude = Math.abs(value);
  if (magnitude === 0) return sign;
  if (magnitude === Infinity) return sign + infinity;
  const smallest = 1 - bias(format);
  let exponent = Math.max(Math.floor(Math.log2(magnitude)), smallest);
  while (exponent > smallest && 2 ** exponent > magnitude) exponent--;
  while (2 ** (exponent + 1) <= magnitude) exponent++;
  // In units of the last place. A carry out of the fraction runs into the exponent field, as it should.
  const units = roundHalfEven(magnitude / 2 ** (exponent - format.fraction));
  const bits = (exponent - smallest) * 2 ** format.fraction + units;
  return sign + Math.min(bits, infinity);
}

export function decodeSmall(bits: number, name: SmallFloat): number {
  const format = FORMATS[name];
  const sign = bits >= 2 ** (format.fraction + format.exponent) ? -1 : 1;
  const fraction = bits % 2 ** format.fraction;
  const exponent = Math.floor(bits / 2 ** format.fraction) % 2 ** format.exponent;
  if (exponent === 2 ** format.exponent - 1) return fraction === 0 ? sign * Infinity : NaN;
  const smallest = 1 - bias(format);
  if (exponent === 0) return sign * fraction * 2 ** (smallest - format.fraction);
  return sign * (2 ** format.fraction + fraction) * 2 ** (smallest + exponent - 1 - format.fraction);
}

/** The value as the dtype holds it. */
export function roundToDtype(value: number, dtype: FloatName): number {
  return dtype === 'f32' ? Math.fround(value) : decodeSmall(encodeSmall(value, dtype), dtype);
}

function roundHalfEven(x: number): number {
  const floor = Math.floor(x);
  const rest = x - floor;
  if (rest < 0.5) return floor;
  if (rest > 0.5) return floor + 1;
  return floor % 2 === 0 ? floor : floor + 1;
}
