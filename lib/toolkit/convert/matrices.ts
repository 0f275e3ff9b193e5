/**
 * Matrices of a conversion. What has the size of weights or of texts is f32 and multiplied by the backend; what has the
 * size of heads is f64 and left to ml-matrix.
 */
import { Matrix } from 'ml-matrix';
import { getBackend } from '../../backend';

/** [rows, columns] row-major. */
export interface Rows {
  readonly data: Float32Array;
  readonly rows: number;
  readonly columns: number;
}

export function emptyRows(rows: number, columns: number): Rows {
  return { data: new Float32Array(rows * columns), rows, columns };
}

/** Rows [from, from + count), a view. */
export function rowsOf({ data, columns }: Rows, from: number, count: number): Rows {
  return { data: data.subarray(from * columns, (from + count) * columns), rows: count, columns };
}

/** a b^T: [a.rows, b.rows]. */
export function timesTransposed(a: Rows, b: Rows): Rows {
  const backend = getBackend();
  const out = emptyRows(a.rows, b.rows);
  const { data: weight, rows, columns } = b;
  const weights = backend.packWeights({ weight, dtype: 'f32', rows, columns });
  try {
    backend.linear({ x: a.data, weights, bias: null, out: out.data, tokens: a.rows });
  } finally {
    weights.dispose();
  }
  return out;
}

export function transposed({ data, rows, columns }: Rows): Rows {
  const out = emptyRows(columns, rows);
  getBackend().transpose({ x: data, out: out.data, rows, columns });
  return out;
}

export function toMatrix({ data, rows, columns }: Rows): Matrix {
  return Matrix.from1DArray(rows, columns, data);
}

/** a M a^T for a symmetric M [a.columns, a.columns]; a a^T where it is null. In f64 from f32 products. */
export function gram(a: Rows, metric: Rows | null): Matrix {
  const weighted = metric === null ? a : timesTransposed(a, metric);
  const product = toMatrix(timesTransposed(weighted, a));
  // Rounding differs by side.
  return product.add(product.transpose()).mul(0.5);
}

/** The diagonal of gram(a, metric). */
export function energies(a: Rows, metric: Rows | null): Float64Array {
  const weighted = metric === null ? a : timesTransposed(a, metric);
  return Float64Array.from({ length: a.rows }, (_, row) => {
    let sum = 0;
    for (let i = row * a.columns; i < (row + 1) * a.columns; i++) {
      sum += a.data[i] * weighted.data[i];
    }
    return sum;
  });
}

/** factors a, of a few rows: [factors.rows, a.columns], summed in f64. */
export function combine(factors: Matrix, a: Rows): Rows {
  const out = emptyRows(factors.rows, a.columns);
  const sum = new Float64Array(a.columns);
  for (let row = 0; row < factors.rows; row++) {
    sum.fill(0);
    for (let k = 0; k < a.rows; k++) {
      const factor = factors.get(row, k);
      if (factor === 0) continue;
      const first = k * a.columns;
      for (let c = 0; c < a.columns; c++) sum[c] += factor * a.data[first + c];
    }
    out.data.set(sum, row * a.columns);
  }
  return out;
}

/** Sums of x^T y over the tokens of many windows: f32 within a window, f64 over all. */
export class Moments {
  tokens = 0;
  private readonly sum: Float64Array;

  constructor(
    private readonly left: number,
    private readonly right: number,
  ) {
    this.sum = new Float64Array(left * right);
  }

  /** x [tokens, left], y [tokens, right] */
  add(x: Rows, y: Rows): void {
    const product = timesTransposed(transposed(x), transposed(y)).data;
    for (let i = 0; i < product.length; i++) this.sum[i] += product[i];
    this.tokens += x.rows;
  }

  /** Per token, [left, right]. */
  mean(): Matrix {
    return Matrix.from1DArray(this.left, this.right, this.sum).div(Math.max(1, this.tokens));
  }
}
