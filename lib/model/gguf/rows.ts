/** Orders of rows in which GGUF and Hugging Face differ, and tensors with their rows in another order. */
import { bf16BitsToF32, f16BitsToF32 } from '../../core/half';
import type { LoadedTensor, StoredTensor } from '../../format/file';

/** All dims but the last; elements of a vector. */
export function rowCount(shape: readonly number[]): number {
  return shape.length === 1 ? shape[0] : shape.slice(0, -1).reduce((a, b) => a * b, 1);
}

/** A new array of a tensor's values. */
export function valuesOf({ dtype, data }: LoadedTensor): Float32Array {
  if (dtype === 'f32') return Float32Array.from(data);
  return Float32Array.from(data, dtype === 'f16' ? f16BitsToF32 : bf16BitsToF32);
}

/** Rows of `tensor` as a tensor of this shape: row r is `tensor`'s rowOf(r). */
export function takeRows<T extends StoredTensor>(
  tensor: T,
  shape: readonly number[],
  rowOf: (row: number) => number,
): T {
  const { data } = tensor;
  const rows = rowCount(shape);
  // Elements of a row, or bytes of its blocks.
  const columns = data.length / rowCount(tensor.shape);
  const out = data.slice(0, rows * columns);
  for (let row = 0; row < rows; row++) {
    const from = rowOf(row) * columns;
    out.set(data.subarray(from, from + columns), row * columns);
  }
  return { ...tensor, shape, data: out };
}

/**
 * GGUF's Llama has the rows of Q and K in the order of interleaved RoPE: row (h, r, s) of [heads, headDim / 2, 2] turns
 * with its neighbour. Half-split RoPE wants it at (h, s, r) of [heads, 2, headDim / 2].
 */
export function halfSplitRow(headDim: number): (row: number) => number {
  const pairs = headDim / 2;
  return (row) => {
    const inHead = row % headDim;
    return row - inHead + 2 * (inHead % pairs) + Math.floor(inHead / pairs);
  };
}

export function halfSplit<T extends StoredTensor>(tensor: T, heads: number): T {
  const rowOf = halfSplitRow(tensor.shape[0] / heads);
  return takeRows(tensor, tensor.shape, rowOf);
}

/** The inverse of halfSplit. */
export function interleaved<T extends StoredTensor>(tensor: T, heads: number): T {
  const headDim = tensor.shape[0] / heads;
  return takeRows(tensor, tensor.shape, (row) => {
    const inHead = row % headDim;
    return row - inHead + (inHead % 2) * (headDim / 2) + Math.floor(inHead / 2);
  });
}

/**
 * GGUF has all queries, then all keys, then all values; Falcon and GPT-NeoX have them by groups: the queries of a KV
 * head, its key, its value.
 */
export function groupedQkvRow(heads: number, kvHeads: number, headDim: number) {
  const group = heads / kvHeads;
  return (row: number): number => {
    const inHead = row % headDim;
    const head = Math.floor(row / headDim);
    const kvHead = Math.floor(head / (group + 2));
    const role = head % (group + 2);
    if (role < group) return (kvHead * group + role) * headDim + inHead;
    const before = role === group ? heads : heads + kvHeads;
    return (before + kvHead) * headDim + inHead;
  };
}
