/**
 * How far a converted layer is from the original by its weights alone, all inputs alike:
 *   keyError:    the products conj(q_r) k_r that scores are made of, over heads and RoPE pairs,
 *   valueError:  the maps O_h V_h from a head's inputs to the output, over heads;
 * both sqrt(sum |M - M'|^2 / sum |M|^2), 0 for a layer that computes the same.
 */
import { Matrix } from 'ml-matrix';
import { timesTransposed, toMatrix, transposed, type Rows } from './matrices';
import { headRows, type Projections } from './projections';

export interface WeightErrors {
  keyError: number;
  valueError: number;
}

/** Both layers have the same query heads in the same order. */
export function weightErrors(before: Projections, after: Projections): WeightErrors {
  return {
    keyError: relative((head) => keyDistance(before, after, head), before.heads),
    valueError: relative((head) => valueDistance(before, after, head), before.heads),
  };
}

/** |M - M'|^2 and |M|^2. */
type Distance = [difference: number, whole: number];

function relative(distance: (head: number) => Distance, heads: number): number {
  const sum = [0, 0];
  for (let head = 0; head < heads; head++) {
    distance(head).forEach((part, i) => (sum[i] += part));
  }
  return sum[1] > 0 ? Math.sqrt(Math.max(0, sum[0]) / sum[1]) : 0;
}

const kvHead = ({ heads, kvHeads }: Projections, head: number): number =>
  Math.floor((head * kvHeads) / heads);

/** |q* k - q'* k'|^2 = |q|^2 |k|^2 + |q'|^2 |k'|^2 - 2 Re(<q', q> <k, k'>) */
function keyDistance(before: Projections, after: Projections, head: number): Distance {
  const { headDim } = before;
  const [q, p] = [before, after].map(({ query }) => headRows(query, headDim, head));
  const [k, l] = [before, after].map((layer) => headRows(layer.key, headDim, kvHead(layer, head)));
  let [difference, whole] = [0, 0];
  for (let pair = 0; pair < headDim / 2; pair++) {
    const own = dot(q, q, pair)[0] * dot(k, k, pair)[0];
    const other = dot(p, p, pair)[0] * dot(l, l, pair)[0];
    const [a, b] = dot(p, q, pair);
    const [c, d] = dot(k, l, pair);
    difference += own + other - 2 * (a * c - b * d);
    whole += own;
  }
  return [difference, whole];
}

/** <x, y> = sum over columns of conj(x_r) y_r, rows r and r + D/2 being real and imaginary parts. */
function dot(x: Rows, y: Rows, pair: number): [number, number] {
  const { columns, rows } = x;
  const half = (rows / 2) * columns;
  let [re, im] = [0, 0];
  for (let i = pair * columns; i < (pair + 1) * columns; i++) {
    re += x.data[i] * y.data[i] + x.data[i + half] * y.data[i + half];
    im += x.data[i] * y.data[i + half] - x.data[i + half] * y.data[i];
  }
  return [re, im];
}

/** |O V - O' V'|^2 from products of headDim x headDim: <O V, O' V'> = trace(O^T O' V' V^T). */
function valueDistance(before: Projections, after: Projections, head: number): Distance {
  const { headDim } = before;
  const parts = [before, after].map((layer) => ({
    output: transposed(headColumns(layer.output, headDim, head)),
    value: headRows(layer.value, headDim, kvHead(layer, head)),
  }));
  const inner = (a: number, b: number): number => {
    const left = toMatrix(timesTransposed(parts[a].output, parts[b].output));
    const right = toMatrix(timesTransposed(parts[b].value, parts[a].value));
    return Matrix.mul(left, right.transpose()).sum();
  };
  const whole = inner(0, 0);
  return [whole + inner(1, 1) - 2 * inner(0, 1), whole];
}

function headColumns({ data, rows, columns }: Rows, headDim: number, head: number): Rows {
  const out = new Float32Array(rows * headDim);
  for (let row = 0; row < rows; row++) {
    const from = row * columns + head * headDim;
    out.set(data.subarray(from, from + headDim), row * headDim);
  }
  return { data: out, rows, columns: headDim };
}
