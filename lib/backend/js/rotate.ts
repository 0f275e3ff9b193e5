/**
 * The Hadamard rotation of keys and values, see docs/numerics.md: with P the largest power of two <= D, elements [0, P) of
 * a row [D] go through the Walsh-Hadamard transform over sqrt(P), then, where P < D, elements [D - P, D) do. Each of the
 * two is symmetric and orthogonal, so the inverse is the two in reverse order.
 */
type Row = Float32Array | Float64Array;

/** Turns x[at .. at + dims). Over f32 each sum and product is rounded to it: that is what is stored on every backend. */
export function rotate(x: Row, at: number, dims: number): void {
  const length = largestPower(dims);
  transform(x, at, length);
  if (length < dims) transform(x, at + dims - length, length);
}

/** The inverse of `rotate`. */
export function rotateBack(x: Row, at: number, dims: number): void {
  const length = largestPower(dims);
  if (length < dims) transform(x, at + dims - length, length);
  transform(x, at, length);
}

/** The largest power of two <= dims. */
function largestPower(dims: number): number {
  return 2 ** (31 - Math.clz32(dims));
}

function transform(x: Row, at: number, length: number): void {
  const end = at + length;
  for (let half = 1; half < length; half *= 2) {
    for (let first = at; first < end; first += 2 * half) {
      for (let j = first; j < first + half; j++) {
        const a = x[j];
        const b = x[j + half];
        x[j] = a + b;
        x[j + half] = a - b;
      }
    }
  }
  const factor = Math.fround(1 / Math.sqrt(length));
  for (let j = at; j < end; j++) x[j] *= factor;
}
