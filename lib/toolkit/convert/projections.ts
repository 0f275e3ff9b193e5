/**
 * The projections of one layer's attention as a conversion sees them, f32. A bias is one more input column, for an input
 * that is always 1: whatever is done to rows is done to biases.
 */
import { emptyRows, rowsOf, type Rows } from './matrices';

export interface Projections {
  readonly heads: number;
  /** Query head h reads KV head floor(h kvHeads / heads). */
  readonly kvHeads: number;
  readonly headDim: number;
  /** [heads * headDim, columns]; columns: hiddenSize, and 1 for a bias. */
  readonly query: Rows;
  /** [kvHeads * headDim, columns] */
  readonly key: Rows;
  /** [kvHeads * headDim, columns] */
  readonly value: Rows;
  /** [hiddenSize, heads * headDim]; its own bias is no part of a conversion. */
  readonly output: Rows;
}

/** Rows of so many heads from one on. */
export function headRows(rows: Rows, headDim: number, first: number, heads = 1): Rows {
  return rowsOf(rows, first * headDim, heads * headDim);
}

/** The heads in another order: head n of the result is head order[n]. */
export function orderHeads(rows: Rows, headDim: number, order: readonly number[]): Rows {
  const out = emptyRows(order.length * headDim, rows.columns);
  order.forEach((head, n) => {
    out.data.set(headRows(rows, headDim, head).data, n * headDim * rows.columns);
  });
  return out;
}

/** KV heads in another order, their query heads and the columns of the output projection with them: the same function. */
export function reorder(layer: Projections, order: readonly number[]): Projections {
  const { heads, kvHeads, headDim, query, key, value, output } = layer;
  const size = heads / kvHeads;
  const queryOrder = order.flatMap((kv) => Array.from({ length: size }, (_, i) => kv * size + i));
  return {
    ...layer,
    query: orderHeads(query, headDim, queryOrder),
    key: orderHeads(key, headDim, order),
    value: orderHeads(value, headDim, order),
    output: orderColumns(output, headDim, queryOrder),
  };
}

function orderColumns(output: Rows, headDim: number, order: readonly number[]): Rows {
  const out = emptyRows(output.rows, output.columns);
  for (let row = 0; row < output.rows; row++) {
    const first = row * output.columns;
    order.forEach((head, n) => {
      const from = first + head * headDim;
      out.data.set(output.data.subarray(from, from + headDim), first + n * headDim);
    });
  }
  return out;
}
