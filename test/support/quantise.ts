/** What a quantised cache holds of a row, from the definition in docs/numerics.md. Shares no code with the package. */
import { roundToDtype, type FloatName } from './numbers';

const { fround, max, min, round } = Math;

export type CacheName = FloatName | 'q8' | 'q4';

/** To the nearest whole number, ties to even. */
function nearest(x: number): number {
  return x % 1 === 0.5 || x % 1 === -0.5 ? 2 * round(x / 2) : round(x);
}

function group(values: number[], dtype: 'q8' | 'q4'): number[] {
  const f16 = (x: number): number => roundToDtype(x, 'f16');
  const lowest = dtype === 'q8' ? 0 : f16(min(...values));
  const size =
    dtype === 'q8' ? max(...values.map((x) => max(x, -x))) : fround(max(...values) - lowest);
  const [first, last] = dtype === 'q8' ? [-127, 127] : [0, 15];
  const scale = f16(fround(size / last));
  const inverse = scale > 0 ? fround(1 / scale) : 0;
  return values.map((x) => {
    const steps = nearest(fround(fround(x - lowest) * inverse));
    return fround(scale * max(first, min(last, steps)) + lowest);
  });
}

/** A token's key or value of one head: groups of 32, the last one filled up with zeros. */
export function asStored(row: number[], dtype: CacheName): number[] {
  if (dtype !== 'q8' && dtype !== 'q4') return row.map((x) => roundToDtype(x, dtype));
  const held: number[] = [];
  for (let i = 0; i < row.length; i += 32) {
    const values = row.slice(i, i + 32);
    const filled = [...values, ...new Array<number>(32 - values.length).fill(0)];
    held.push(...group(filled, dtype).slice(0, values.length));
  }
  return held;
}
