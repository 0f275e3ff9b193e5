/** Numbers of a tensor as the oracle sees them, and the one way tests compare them. */
import { decodeSmall, type FloatName, type Numbers } from './numbers';

// Globals are slow to reach from within jest: taken once.
const { abs, max } = Math;
const { isFinite, isNaN } = Number;

/** Values of f32 data or of f16 / bf16 bits. */
export function toNumbers(data: ArrayLike<number>, dtype: FloatName): number[] {
  return Array.from(data, (x) => (dtype === 'f32' ? x : decodeSmall(x, dtype)));
}

/**
 * Fails where |actual - expected| > tolerance * max(1, largest finite |expected|). NaN answers NaN alone; an infinity
 * only itself.
 */
export function expectClose(
  what: string,
  actual: Numbers,
  expected: Numbers,
  tolerance: number,
): void {
  if (actual.length !== expected.length) {
    throw new Error(`${what}: ${actual.length} elements, not ${expected.length}`);
  }
  let largest = 1;
  for (let i = 0; i < expected.length; i++) {
    if (isFinite(expected[i])) largest = max(largest, abs(expected[i]));
  }
  let worst = 0;
  let where = -1;
  for (let i = 0; i < expected.length; i++) {
    const error = difference(actual[i], expected[i]) / largest;
    if (error > worst) [worst, where] = [error, i];
  }
  if (worst > tolerance) {
    throw new Error(
      `${what}: error ${worst.toExponential(2)} above ${tolerance.toExponential(2)} at element ${where}: ` +
        `${actual[where]}, not ${expected[where]} (largest ${largest})`,
    );
  }
}

function difference(a: number, b: number): number {
  if (isNaN(a) && isNaN(b)) return 0;
  if (a === b) return 0;
  const d = abs(a - b);
  return isFinite(d) ? d : Infinity;
}

/** Fails at the first element whose bits differ. */
export function expectSameBits(what: string, a: ArrayBufferView, b: ArrayBufferView): void {
  const x = new Uint8Array(a.buffer, a.byteOffset, a.byteLength);
  const y = new Uint8Array(b.buffer, b.byteOffset, b.byteLength);
  if (x.length !== y.length) throw new Error(`${what}: ${x.length} bytes and ${y.length}`);
  const i = x.findIndex((byte, at) => byte !== y[at]);
  if (i >= 0) throw new Error(`${what}: bytes differ from byte ${i} of ${x.length} on`);
}
