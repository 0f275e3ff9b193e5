/** What a quantised cache holds of a row, from the definition in docs/numerics.md. Shares no code with the package. */
import { roundToDtype, type FloatName } from './numbers';

const { floor, fround, log2, max, min, round, sqrt } = Math;

export type CacheName = FloatName | 'q8' | 'q4';

/** To the nearest whole number, ties to even. */
function nearest(x: number): number {
  return x % 1 === 0.5 || x % 1 === -0.5 ? 2 * round(x / 2) : round(x);
}

const f16 = (x: number): number => roundToDtype(x, 'f16');

/** The values of one scale, and of one minimum unless `symmetric`, as `most` steps of it hold them. */
function group(values: number[], most: number, symmetric: boolean): number[] {
  const lowest = symmetric ? 0 : f16(min(...values));
  const size = symmetric ? max(...values.map((x) => max(x, -x))) : fround(max(...values) - lowest);
  const scale = f16(fround(size / most));
  const inverse = scale === 0 ? 0 : fround(1 / scale);
  return values.map((x) => {
    const steps = nearest(fround(fround(x - lowest) * inverse));
    return fround(scale * max(symmetric ? -most : 0, min(most, steps)) + lowest);
  });
}

/** A block of one head's keys [tokens][dims], quantised per dim over the tokens. */
export function keysAsStored(rows: number[][], dtype: 'q8' | 'q4'): number[][] {
  const dims = rows[0].map((_, d) =>
    group(
      rows.map((row) => row[d]),
      dtype === 'q8' ? 255 : 15,
      false,
    ),
  );
  return rows.map((_, t) => dims.map((dim) => dim[t]));
}

/** One Walsh-Hadamard transform of a power of two of elements, over its root; each step rounded by `round`. */
function transformed(x: number[], round: (x: number) => number): number[] {
  let y = x;
  for (let half = 1; half < x.length; half *= 2) {
    y = y.map((_, j) => {
      const second = floor(j / half) % 2 === 1;
      return round(second ? y[j - half] - y[j] : y[j] + y[j + half]);
    });
  }
  return y.map((value) => round(value * fround(1 / sqrt(x.length))));
}

/** The rotation of a row, in f32, and its inverse, in f64. */
export function rotated(row: number[]): number[] {
  const length = 2 ** floor(log2(row.length));
  const turned = [...transformed(row.slice(0, length), fround), ...row.slice(length)];
  if (length === row.length) return turned;
  const rest = row.length - length;
  return [...turned.slice(0, rest), ...transformed(turned.slice(rest), fround)];
}

export function turnedBack(row: number[]): number[] {
  const length = 2 ** floor(log2(row.length));
  const exact = (x: number): number => x;
  const rest = row.length - length;
  const turned = rest === 0 ? row : [...row.slice(0, rest), ...transformed(row.slice(rest), exact)];
  return [...transformed(turned.slice(0, length), exact), ...turned.slice(length)];
}

/** A token's value of one head: groups of 32, the last one filled up with zeros. */
export function asStored(row: number[], dtype: CacheName): number[] {
  if (dtype !== 'q8' && dtype !== 'q4') return row.map((x) => roundToDtype(x, dtype));
  const held: number[] = [];
  for (let i = 0; i < row.length; i += 32) {
    const values = row.slice(i, i + 32);
    const filled = [...values, ...new Array<number>(32 - values.length).fill(0)];
    const most = dtype === 'q8' ? 127 : 15;
    held.push(...group(filled, most, dtype === 'q8').slice(0, values.length));
  }
  return held;
}
