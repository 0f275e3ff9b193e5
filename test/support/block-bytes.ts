/** A block in the form of snapshots, from the definitions in docs/numerics.md. Shares no code with the package. */
import { encodeSmall, roundToDtype, type FloatName } from './numbers';
import type { QuantisedName } from './quantise';

const { floor, fround, max, min, round } = Math;

/** To the nearest whole number, ties to even. */
function nearest(x: number): number {
  return x % 1 === 0.5 || x % 1 === -0.5 ? 2 * round(x / 2) : round(x);
}

const f16 = (x: number): number => roundToDtype(x, 'f16');

/** Numbers that stand for values: x = scale * number + minimum. */
interface Quantised {
  minimum: number;
  scale: number;
  numbers: number[];
}

/** A dim of 64 keys. */
function quantisedDim(values: number[], dtype: QuantisedName): Quantised {
  const last = dtype === 'q8' ? 255 : 15;
  const minimum = f16(min(...values));
  const scale = f16(fround(fround(max(...values) - minimum) / last));
  const inverse = scale === 0 ? 0 : fround(1 / scale);
  const numbers = values.map((x) => {
    const steps = nearest(fround(fround(x - minimum) * inverse));
    return max(0, min(last, steps));
  });
  return { minimum, scale, numbers };
}

/** 32 dims of a token's value. */
function quantisedGroup(values: number[], dtype: QuantisedName): Quantised {
  const lowest = dtype === 'q8' ? 0 : f16(min(...values));
  const size =
    dtype === 'q8' ? max(...values.map((x) => max(x, -x))) : fround(max(...values) - lowest);
  const [first, last] = dtype === 'q8' ? [-127, 127] : [0, 15];
  const scale = f16(fround(size / last));
  const inverse = scale === 0 ? 0 : fround(1 / scale);
  const numbers = values.map((x) => {
    const steps = nearest(fround(fround(x - lowest) * inverse));
    return max(first, min(last, steps));
  });
  return { minimum: lowest, scale, numbers };
}

/** Groups of 32 dims, the last one filled up with zeros. */
function groupsOf(row: number[]): number[][] {
  const groups: number[][] = [];
  for (let i = 0; i < row.length; i += 32) {
    const values = row.slice(i, i + 32);
    groups.push([...values, ...new Array<number>(32 - values.length).fill(0)]);
  }
  return groups;
}

/** Little-endian bytes of rows of floats. */
export function storedBytes(rows: number[][], dtype: FloatName): number[] {
  if (dtype === 'f32') return [...new Uint8Array(Float32Array.from(rows.flat()).buffer)];
  return rows.flat().flatMap((x) => {
    const bits = encodeSmall(x, dtype);
    return [bits % 256, floor(bits / 256)];
  });
}

function f16Bytes(values: number[]): number[] {
  return storedBytes([values], 'f16');
}

function nibbles(numbers: number[]): number[] {
  const filled = numbers.length % 2 === 0 ? numbers : [...numbers, 0];
  return filled.flatMap((low, i) => (i % 2 === 0 ? [low + 16 * filled[i + 1]] : []));
}

/** A block's quantised keys in the form of snapshots. */
export function keyBytes(rows: number[][], dtype: QuantisedName): number[] {
  const dims = rows[0].map((_, d) => {
    const values = rows.map((row) => row[d]);
    return quantisedDim(values, dtype);
  });
  const numbers = rows.map((_, t) => dims.map((dim) => dim.numbers[t]));
  return [
    ...f16Bytes(dims.map(({ minimum }) => minimum)),
    ...f16Bytes(dims.map(({ scale }) => scale)),
    ...numbers.flatMap((row) => (dtype === 'q8' ? row : nibbles(row))),
  ];
}

/** A block's quantised values likewise: rows of GGUF's Q8_0 or Q4_1. */
export function valueBytes(rows: number[][], dtype: QuantisedName): number[] {
  return rows.flatMap(groupsOf).flatMap((values) => {
    const { minimum, scale, numbers } = quantisedGroup(values, dtype);
    if (dtype === 'q8') return [...f16Bytes([scale]), ...numbers.map((n) => (n + 256) % 256)];
    const low = numbers.slice(0, 16);
    return [...f16Bytes([scale, minimum]), ...low.map((n, i) => n + 16 * numbers[i + 16])];
  });
}
