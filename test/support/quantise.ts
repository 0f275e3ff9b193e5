/** What a cache holds of keys and values, from the definitions in docs/numerics.md. Shares no code with the package. */
import { roundToDtype, type FloatName } from './numbers';

const { abs, floor, fround, log2, max, min, round, sqrt } = Math;

export type QuantisedName = 'q8' | 'q4';
export type CacheName = FloatName | QuantisedName;

/** Values of a group of V. */
const GROUP = 32;

export function isQuantised(dtype: CacheName): dtype is QuantisedName {
  return dtype === 'q8' || dtype === 'q4';
}

/** To the nearest whole number, ties to even. */
function nearest(x: number): number {
  return x % 1 === 0.5 || x % 1 === -0.5 ? 2 * round(x / 2) : round(x);
}

/** Numbers of one scale: x = scale * q + lowest, q whole, from `first` to `last`. */
interface Steps {
  scale: number;
  inverse: number;
  lowest: number;
  first: number;
  last: number;
}

function stepsOf(scale: number, lowest: number, first: number, last: number): Steps {
  return { scale, inverse: scale === 0 ? 0 : fround(1 / scale), lowest, first, last };
}

function inSteps(x: number, { scale, inverse, lowest, first, last }: Steps): number {
  const q = nearest(fround(fround(x - lowest) * inverse));
  return fround(fround(scale * max(first, min(last, q))) + lowest);
}

function f16(x: number): number {
  return roundToDtype(x, 'f16');
}

/** From the smallest number up, in `last` steps. */
function upwards(smallest: number, largest: number, last: number): Steps {
  const lowest = f16(smallest);
  return stepsOf(f16(fround(fround(largest - lowest) / last)), lowest, 0, last);
}

/** Numbers [from, to) of a value's row, `to - from` of them at most GROUP, filled up with zeros. */
function groupSteps(row: ArrayLike<number>, from: number, to: number, dtype: QuantisedName): Steps {
  const full = to - from === GROUP;
  let smallest = full ? Infinity : 0;
  let largest = full ? -Infinity : 0;
  for (let i = from; i < to; i++) {
    if (row[i] < smallest) smallest = row[i];
    if (row[i] > largest) largest = row[i];
  }
  if (dtype === 'q4') return upwards(smallest, largest, 15);
  const size = max(abs(smallest), abs(largest));
  return stepsOf(f16(fround(size / 127)), 0, -127, 127);
}

/** A token's value of one head: groups of 32, the last one filled up with zeros. */
export function asStored(row: ArrayLike<number>, dtype: CacheName): number[] {
  if (!isQuantised(dtype)) return Array.from(row, (x) => roundToDtype(x, dtype));
  const held = new Array<number>(row.length);
  for (let from = 0; from < row.length; from += GROUP) {
    const to = min(row.length, from + GROUP);
    const steps = groupSteps(row, from, to, dtype);
    for (let i = from; i < to; i++) held[i] = inSteps(row[i], steps);
  }
  return held;
}

/** The keys of one head over a whole block, [tokens][headDim]: each dim has a scale of its own. */
export function keysAsStored(keys: readonly ArrayLike<number>[], dtype: QuantisedName): number[][] {
  const held = keys.map((key) => new Array<number>(key.length));
  for (let d = 0; d < keys[0].length; d++) {
    let smallest = Infinity;
    let largest = -Infinity;
    for (const key of keys) {
      if (key[d] < smallest) smallest = key[d];
      if (key[d] > largest) largest = key[d];
    }
    const steps = upwards(smallest, largest, dtype === 'q8' ? 255 : 15);
    for (let t = 0; t < keys.length; t++) held[t][d] = inSteps(keys[t][d], steps);
  }
  return held;
}

/** The Walsh-Hadamard transform of row[from .. from + width), scaled to keep lengths, in the row's own precision. */
function transform(row: Float32Array | Float64Array, from: number, width: number): void {
  for (let h = 1; h < width; h *= 2) {
    for (let j = from; j < from + width; j += 2 * h) {
      for (let i = j; i < j + h; i++) {
        const [a, b] = [row[i], row[i + h]];
        row[i] = a + b;
        row[i + h] = a - b;
      }
    }
  }
  const scale = fround(1 / sqrt(width));
  for (let i = from; i < from + width; i++) row[i] *= scale;
}

/** A head's key or value turned as rotated caches store it: the largest power of two of its dims, first and then last. */
export function rotated(row: ArrayLike<number>): number[] {
  const turned = Float32Array.from(row);
  const width = 2 ** floor(log2(row.length));
  transform(turned, 0, width);
  if (width < row.length) transform(turned, row.length - width, width);
  return Array.from(turned);
}

/** The inverse, in float64. */
export function turnedBack(row: ArrayLike<number>): number[] {
  const turned = Float64Array.from(row);
  const width = 2 ** floor(log2(row.length));
  if (width < row.length) transform(turned, row.length - width, width);
  transform(turned, 0, width);
  return Array.from(turned);
}
