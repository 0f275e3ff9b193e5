/**
 * The one inner loop of the JS backend: C[rows, 8] += A[rows, length] B[length, 8].
 *
 * B is a panel: element (l, n) at offset + l * stride + n, f32. Weights and keys are stored as panels (8 output features
 * or 8 tokens, stride 8); a row-major V is one panel per 8 dims (stride = its row length). So linear layers, scores
 * and weighted sums of values are all this product. A and C are f64: in JS arithmetic is double anyway, and an array of
 * doubles spares the conversion at each load. Three rows by four columns are what 16 registers hold: 12 sums, 3 of A, 1
 * of B; a fourth row spills.
 */

/** Columns of a panel: tokens of K, dims of V, output features of a weight. */
export const LANES = 8;

export function roundUpToLanes(n: number): number {
  return Math.ceil(n / LANES) * LANES;
}

/** Where row n (a token of K, an output feature of W) begins among panels of `length` steps; steps are 8 apart. */
export function laneOffset(n: number, length: number): number {
  const lane = n % LANES;
  return (n - lane) * length + lane;
}

/** Rows of doubles: element (r, l) at offset + r * stride + l. */
export interface Rows {
  data: Float64Array;
  offset: number;
  stride: number;
}

export interface Panel {
  data: Float32Array;
  offset: number;
  stride: number;
}

/** c[r, n] += sum over l < length of a[r, l] * b[l, n], for r < rows and n < LANES. */
export function multiplyPanel(a: Rows, b: Panel, c: Rows, rows: number, length: number): void {
  let r = 0;
  for (; r + 3 <= rows; r += 3) {
    threeRows(a, b, c, r, 0, length);
    threeRows(a, b, c, r, 4, length);
  }
  if (rows - r === 2) {
    twoRows(a, b, c, r, 0, length);
    twoRows(a, b, c, r, 4, length);
  } else if (rows - r === 1) {
    oneRow(a, b, c, r, length);
  }
}

function threeRows(a: Rows, b: Panel, c: Rows, r: number, n: number, length: number): void {
  const x = a.data;
  const y = b.data;
  const step = b.stride;
  const x0 = a.offset + r * a.stride;
  const x1 = x0 + a.stride;
  const x2 = x1 + a.stride;
  let p = b.offset + n;
  let s00 = 0, s01 = 0, s02 = 0, s03 = 0; // prettier-ignore
  let s10 = 0, s11 = 0, s12 = 0, s13 = 0; // prettier-ignore
  let s20 = 0, s21 = 0, s22 = 0, s23 = 0; // prettier-ignore
  for (let l = 0; l < length; l++) {
    const a0 = x[x0 + l];
    const a1 = x[x1 + l];
    const a2 = x[x2 + l];
    const b0 = y[p];
    s00 += a0 * b0;
    s10 += a1 * b0;
    s20 += a2 * b0;
    const b1 = y[p + 1];
    s01 += a0 * b1;
    s11 += a1 * b1;
    s21 += a2 * b1;
    const b2 = y[p + 2];
    s02 += a0 * b2;
    s12 += a1 * b2;
    s22 += a2 * b2;
    const b3 = y[p + 3];
    s03 += a0 * b3;
    s13 += a1 * b3;
    s23 += a2 * b3;
    p += step;
  }
  addFour(c, r, n, s00, s01, s02, s03);
  addFour(c, r + 1, n, s10, s11, s12, s13);
  addFour(c, r + 2, n, s20, s21, s22, s23);
}

function twoRows(a: Rows, b: Panel, c: Rows, r: number, n: number, length: number): void {
  const x = a.data;
  const y = b.data;
  const step = b.stride;
  const x0 = a.offset + r * a.stride;
  const x1 = x0 + a.stride;
  let p = b.offset + n;
  let s00 = 0, s01 = 0, s02 = 0, s03 = 0; // prettier-ignore
  let s10 = 0, s11 = 0, s12 = 0, s13 = 0; // prettier-ignore
  for (let l = 0; l < length; l++) {
    const a0 = x[x0 + l];
    const a1 = x[x1 + l];
    const b0 = y[p];
    s00 += a0 * b0;
    s10 += a1 * b0;
    const b1 = y[p + 1];
    s01 += a0 * b1;
    s11 += a1 * b1;
    const b2 = y[p + 2];
    s02 += a0 * b2;
    s12 += a1 * b2;
    const b3 = y[p + 3];
    s03 += a0 * b3;
    s13 += a1 * b3;
    p += step;
  }
  addFour(c, r, n, s00, s01, s02, s03);
  addFour(c, r + 1, n, s10, s11, s12, s13);
}

/** All eight columns at once: with one row only, more sums are needed to hide the latency of an addition. */
function oneRow(a: Rows, b: Panel, c: Rows, r: number, length: number): void {
  const x = a.data;
  const y = b.data;
  const step = b.stride;
  const x0 = a.offset + r * a.stride;
  let p = b.offset;
  let s0 = 0, s1 = 0, s2 = 0, s3 = 0, s4 = 0, s5 = 0, s6 = 0, s7 = 0; // prettier-ignore
  for (let l = 0; l < length; l++) {
    const a0 = x[x0 + l];
    s0 += a0 * y[p];
    s1 += a0 * y[p + 1];
    s2 += a0 * y[p + 2];
    s3 += a0 * y[p + 3];
    s4 += a0 * y[p + 4];
    s5 += a0 * y[p + 5];
    s6 += a0 * y[p + 6];
    s7 += a0 * y[p + 7];
    p += step;
  }
  addFour(c, r, 0, s0, s1, s2, s3);
  addFour(c, r, 4, s4, s5, s6, s7);
}

function addFour(c: Rows, r: number, n: number, s0: number, s1: number, s2: number, s3: number) {
  const z = c.data;
  const p = c.offset + r * c.stride + n;
  z[p] += s0;
  z[p + 1] += s1;
  z[p + 2] += s2;
  z[p + 3] += s3;
}
