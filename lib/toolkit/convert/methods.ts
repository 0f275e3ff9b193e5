/**
 * From KV heads to fewer: heads g m .. (g + 1) m - 1 become new head g. What queries must be multiplied by, and values mapped
 * by, is folded into the query and output projections. Equations: key-fits.ts, value-fits.ts; docs/conversion.md.
 */
import { Matrix } from 'ml-matrix';
import type { SeededRandom } from '../../core/random';
import { combine, emptyRows, energies, gram, transposed, type Rows } from './matrices';
import { alignedFit, fittedFit, pairGram, type KeyFit } from './key-fits';
import { headRows, type Projections } from './projections';
import { plainSimilarity } from './similarity';
import { alignedValues, block, fittedValues, type ValueFit } from './value-fits';

export const METHODS = ['mean', 'first', 'random', 'medoid', 'aligned', 'fitted'] as const;
export type Method = (typeof METHODS)[number];

export interface MethodInputs {
  /** Of 'random'. */
  random: SeededRandom;
  /** E[x x^T] of the inputs of the projections [columns, columns], for 'fitted'; null: all directions alike. */
  moment: Rows | null;
}

/** `kvHeads` divides the layer's; equal to it, the layer is returned as it is. */
export function convertHeads(
  layer: Projections,
  kvHeads: number,
  method: Method,
  inputs: MethodInputs,
): Projections {
  if (kvHeads === layer.kvHeads) return layer;
  switch (method) {
    case 'mean':
      return pooled(layer, kvHeads, (_, size) => Array<number>(size).fill(1 / size));
    case 'first':
      return pooled(layer, kvHeads, (_, size) => oneOf(0, size));
    case 'medoid':
      return medoids(layer, kvHeads);
    case 'random':
      return drawn(layer, kvHeads, inputs.random);
    case 'aligned':
      return merged(layer, kvHeads, {
        metric: null,
        keys: ({ size, pair }) => alignedFit(size, pair),
        values: ({ size, values }) => alignedValues(size, values),
      });
    case 'fitted':
      return fitted(layer, kvHeads, inputs.moment);
  }
}

/** New heads that are weighted sums of old ones, keys and values alike; queries and outputs stay. */
function pooled(
  layer: Projections,
  kvHeads: number,
  weights: (group: number, size: number) => number[],
): Projections {
  const size = layer.kvHeads / kvHeads;
  const pool = (rows: Rows): Rows =>
    groupwise(layer, kvHeads, rows, (group, heads) =>
      combine(weightedIdentities(weights(group, size), layer.headDim), heads),
    );
  return { ...layer, kvHeads, key: pool(layer.key), value: pool(layer.value) };
}

/** Of each group the head most like the others. */
function medoids(layer: Projections, kvHeads: number): Projections {
  const similarity = plainSimilarity(layer);
  return pooled(layer, kvHeads, (group, size) => {
    const heads = Array.from({ length: size }, (_, i) => group * size + i);
    const sums = heads.map((i) => heads.reduce((sum, j) => sum + similarity[i][j], 0));
    return oneOf(sums.indexOf(Math.max(...sums)), size);
  });
}

/** Heads from scratch, as the paper's: normal, with the standard deviation of the weights they stand for. */
function drawn(layer: Projections, kvHeads: number, random: SeededRandom): Projections {
  const draw = (rows: Rows): Rows => {
    const out = emptyRows(kvHeads * layer.headDim, rows.columns);
    const deviation = Math.sqrt(rows.data.reduce((sum, x) => sum + x * x, 0) / rows.data.length);
    for (let i = 0; i < out.data.length; i++) out.data[i] = deviation * normal(random);
    return out;
  };
  return { ...layer, kvHeads, key: draw(layer.key), value: draw(layer.value) };
}

function normal(random: SeededRandom): number {
  // 1 - u is in (0, 1]: its logarithm is finite.
  const radius = Math.sqrt(-2 * Math.log(1 - random.uniform()));
  return radius * Math.cos(2 * Math.PI * random.uniform());
}

/** How the heads of a group become one, each fit from products of the heads' rows. */
interface Merge {
  metric: Rows | null;
  keys: (group: {
    first: number;
    size: number;
    pair: ReturnType<typeof pairGram>;
    at: number;
  }) => KeyFit;
  values: (group: { first: number; size: number; values: Matrix }) => ValueFit;
}

function merged(layer: Projections, kvHeads: number, { metric, keys, values }: Merge): Projections {
  const { headDim } = layer;
  const size = layer.kvHeads / kvHeads;
  const query = { ...layer.query, data: layer.query.data.slice() };
  const output = { ...layer.output, data: layer.output.data.slice() };
  const queriesOf = layer.heads / layer.kvHeads;
  const key = groupwise(layer, kvHeads, layer.key, (group, heads) => {
    const products = gram(heads, metric);
    const first = group * size;
    const fits = Array.from({ length: headDim / 2 }, (_, at) =>
      keys({ first, size, pair: pairGram(products, headDim, at), at }),
    );
    for (let i = 0; i < size; i++) {
      for (let h = 0; h < queriesOf; h++) {
        turnQuery(headRows(query, headDim, (first + i) * queriesOf + h), fits, i);
      }
    }
    return combine(keyFactors(fits, headDim), heads);
  });
  const value = groupwise(layer, kvHeads, layer.value, (group, heads) => {
    const first = group * size;
    const fit = values({ first, size, values: gram(heads, metric) });
    for (let i = 0; i < size; i++) {
      const factor = fit.factors.subMatrix(i * headDim, (i + 1) * headDim - 1, 0, headDim - 1);
      for (let h = 0; h < queriesOf; h++) mapOutput(output, (first + i) * queriesOf + h, factor);
    }
    return combine(fit.combine, heads);
  });
  return { ...layer, kvHeads, query, key, value, output };
}

function fitted(layer: Projections, kvHeads: number, moment: Rows | null): Projections {
  const { headDim, query, output } = layer;
  const asked = energies(query, moment);
  const queriesOf = layer.heads / layer.kvHeads;
  const weight = (head: number, pair: number): number => {
    let sum = 0;
    for (let h = head * queriesOf; h < (head + 1) * queriesOf; h++) {
      sum += asked[h * headDim + pair] + asked[h * headDim + pair + headDim / 2];
    }
    return sum;
  };
  const columns = transposed(output);
  const read = Array.from({ length: layer.kvHeads }, (_, head) => {
    const products = gram(headRows(columns, headDim, head * queriesOf, queriesOf), null);
    const sum = Matrix.zeros(headDim, headDim);
    for (let h = 0; h < queriesOf; h++) sum.add(block(products, headDim, h, h));
    return sum;
  });
  return merged(layer, kvHeads, {
    metric: moment,
    keys: ({ first, size, pair, at }) =>
      fittedFit(
        size,
        pair,
        Array.from({ length: size }, (_, i) => weight(first + i, at)),
      ),
    values: ({ first, size, values }) =>
      fittedValues(size, values, read.slice(first, first + size)),
  });
}

/** The new heads [kvHeads * headDim, columns], each made from the rows of its group. */
function groupwise(
  { kvHeads: old, headDim }: Projections,
  kvHeads: number,
  rows: Rows,
  make: (group: number, heads: Rows) => Rows,
): Rows {
  const size = old / kvHeads;
  const out = emptyRows(kvHeads * headDim, rows.columns);
  for (let group = 0; group < kvHeads; group++) {
    const made = make(group, headRows(rows, headDim, group * size, size));
    out.data.set(made.data, group * headDim * rows.columns);
  }
  return out;
}

/** [w_1 I, w_2 I, ..] */
function weightedIdentities(weights: readonly number[], dim: number): Matrix {
  const out = Matrix.zeros(dim, weights.length * dim);
  weights.forEach((weight, j) => {
    for (let d = 0; d < dim; d++) out.set(d, j * dim + d, weight);
  });
  return out;
}

function oneOf(index: number, size: number): number[] {
  return Array.from({ length: size }, (_, i) => (i === index ? 1 : 0));
}

/** The sums of all pairs as one real matrix over the rows of a group: z = sum_j b_j z_j. */
function keyFactors(fits: readonly KeyFit[], headDim: number): Matrix {
  const half = headDim / 2;
  const factors = Matrix.zeros(headDim, fits[0].combine.length * headDim);
  fits.forEach(({ combine: terms }, pair) => {
    terms.forEach(([re, im], j) => {
      const column = j * headDim + pair;
      factors.set(pair, column, re);
      factors.set(pair, column + half, -im);
      factors.set(pair + half, column, im);
      factors.set(pair + half, column + half, re);
    });
  });
  return factors;
}

/** q_r becomes conj(a_r) q_r, rows r and r + D/2 of the head, in place. */
function turnQuery({ data, rows, columns }: Rows, fits: readonly KeyFit[], head: number): void {
  const half = rows / 2;
  fits.forEach(({ factors }, pair) => {
    const [re, im] = factors[head];
    for (let c = 0; c < columns; c++) {
      const [a, b] = [pair * columns + c, (pair + half) * columns + c];
      const [x, y] = [data[a], data[b]];
      data[a] = re * x + im * y;
      data[b] = re * y - im * x;
    }
  });
}

/** The columns of one query head of the output projection, O_h becomes O_h A, in place. */
function mapOutput({ data, rows, columns }: Rows, head: number, factor: Matrix): void {
  const dim = factor.rows;
  for (let row = 0; row < rows; row++) {
    const first = row * columns + head * dim;
    const old = Float64Array.from(data.subarray(first, first + dim));
    for (let c = 0; c < dim; c++) {
      let sum = 0;
      for (let k = 0; k < dim; k++) sum += old[k] * factor.get(k, c);
      data[first + c] = sum;
    }
  }
}
