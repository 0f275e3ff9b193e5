/** Keys and values on their way into a layer: checked, turned where positions are the cache's, cut to what is held. */
import type { Backend } from '../backend/contract';
import type { FloatData, FloatDType } from '../core/dtype';
import { expectedError } from '../core/errors';
import type { Tensor } from '../core/tensor';
import { describe, requireFloatTensor, shapeError } from '../core/validate';
import { heldRuns } from './held-runs';
import type { HeldRuns } from './held-runs';
import type { KvLayer } from './layer';
import type { LayerStorage } from './layer-group';

const NO_DATA = new Float32Array(0);
const JUST_ABOVE = 1 + 2 ** -16;

export class AppendRows {
  /** Rows given, of all sequences together. */
  tokens = 0;
  private k: FloatData = NO_DATA;
  private v: FloatData = NO_DATA;
  private dtype: FloatDType = 'f32';
  /** What of an append is held: new sinks, then newest tokens. */
  private readonly runs: HeldRuns = [
    { from: 0, to: 0 },
    { from: 0, to: 0 },
  ];
  /** Turned keys, and values beside them, in f32; grown when needed. */
  private turnedKeys = NO_DATA;
  private turnedValues = NO_DATA;

  /** @throws GqaError INVALID_ARGUMENT, INVALID_RANK, INVALID_SHAPE, INVALID_DTYPE, BUFFER_DETACHED, …; see requireFloatTensor */
  read(storage: LayerStorage, k: unknown, v: unknown): void {
    const { kvHeads, headDim, valueDim } = storage;
    const keys = requireFloatTensor(k, 'k');
    const values = requireFloatTensor(v, 'v');
    const tokens = rowsOf(keys, kvHeads, headDim, 'k', 'headDim');
    if (rowsOf(values, kvHeads, valueDim, 'v', 'valueDim') !== tokens) {
      throw shapeError('v', [tokens, kvHeads, valueDim], values);
    }
    if (keys.dtype !== values.dtype) {
      throw expectedError('INVALID_DTYPE', 'v', `k's dtype ${keys.dtype}`, values.dtype);
    }
    this.tokens = tokens;
    this.k = keys.storage.data;
    this.v = values.storage.data;
    this.dtype = keys.dtype;
  }

  clear(): void {
    this.k = NO_DATA;
    this.v = NO_DATA;
  }

  /** Rows [first, first + tokens) will go to the layer: a quantised cache takes numbers only. @throws GqaError NON_FINITE */
  checkStorable(layer: KvLayer, first: number, tokens: number): void {
    const { keyLimit, valueLimit, kvHeads, headDim, valueDim } = layer.storage;
    this.checkBelow(layer, this.k, kvHeads * headDim, first, tokens, keyLimit, 'k');
    this.checkBelow(layer, this.v, kvHeads * valueDim, first, tokens, valueLimit, 'v');
  }

  private checkBelow(
    layer: KvLayer,
    data: FloatData,
    width: number,
    first: number,
    tokens: number,
    limit: number,
    argument: string,
  ): void {
    if (limit === Infinity) return;
    const { backend } = layer.sequence.cache;
    const position = layer.length;
    for (const { from, to } of heldRuns(layer.ring, position, tokens, this.runs)) {
      if (to <= from) continue;
      const at = first + from - position;
      const rows = at === 0 ? data : data.subarray(at * width, (at + to - from) * width);
      // The limit itself is allowed, and what f32 has just above it is rounded to it.
      if (backend.allBelow(rows, this.dtype, (to - from) * width, limit * JUST_ABOVE)) continue;
      const expected = `finite values of magnitude ${limit} at most for a quantised cache`;
      throw expectedError('NON_FINITE', argument, expected, 'others');
    }
  }

  /**
   * Rows [first, first + tokens) become the layer's next positions; `depths` are those of a tree's tokens, by which a
   * cache that counts positions itself turns keys.
   */
  write(layer: KvLayer, first: number, tokens: number, depths?: Int32Array): void {
    const position = layer.length;
    let { k, v, dtype } = this;
    let row = first - position;
    if (layer.storage.rope !== null && tokens > 0) {
      this.turn(layer, first, tokens, depths);
      k = this.turnedKeys;
      v = this.turnedValues;
      dtype = 'f32';
      row = -position;
    }
    for (const { from, to } of heldRuns(layer.ring, position, tokens, this.runs)) {
      if (to > from) layer.write(k, v, dtype, row + from, to - from, from);
    }
  }

  /** Keys turned to their positions, with their values, from row 0 on. */
  private turn(layer: KvLayer, first: number, tokens: number, depths?: Int32Array): void {
    const { kvHeads, headDim, valueDim, rope } = layer.storage;
    const { backend } = layer.sequence.cache;
    const widen = (data: FloatData, width: number, into: Float32Array<ArrayBuffer>) =>
      widened(backend, data, this.dtype, first, tokens, width, into);
    const keys = widen(this.k, kvHeads * headDim, this.turnedKeys);
    this.turnedKeys = keys;
    this.turnedValues = widen(this.v, kvHeads * valueDim, this.turnedValues);
    if (depths === undefined) {
      rope!.apply(keys, tokens, kvHeads, layer.length);
      return;
    }
    depths.forEach((depth, i) => {
      rope!.apply(keys.subarray(i * kvHeads * headDim), 1, kvHeads, layer.length + depth);
    });
  }
}

/** Rows [first, first + count) in f32, in `into` where that is large enough. */
function widened(
  backend: Backend,
  data: FloatData,
  dtype: FloatDType,
  first: number,
  count: number,
  width: number,
  into: Float32Array<ArrayBuffer>,
): Float32Array<ArrayBuffer> {
  const to = into.length < count * width ? new Float32Array(count * width) : into;
  const from = data.subarray(first * width, (first + count) * width);
  backend.convert({ from, fromDtype: dtype, to, toDtype: 'f32', count: count * width });
  return to;
}

/** Tokens of [tokens, heads, dim] or [1, tokens, heads, dim]. */
function rowsOf(
  tensor: Tensor<FloatDType>,
  heads: number,
  dim: number,
  argument: string,
  dimName: string,
): number {
  const shape = tensor.shape;
  const rank = shape.length;
  if (rank !== 3 && rank !== 4) {
    const expected = `a tensor [tokens, kvHeads, ${dimName}]`;
    throw expectedError('INVALID_RANK', argument, expected, describe(tensor));
  }
  if (shape[rank - 2] !== heads || shape[rank - 1] !== dim || (rank === 4 && shape[0] !== 1)) {
    throw shapeError(argument, ['tokens', heads, dim], tensor);
  }
  return shape[rank - 3];
}
