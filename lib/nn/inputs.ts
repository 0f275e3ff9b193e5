/** What the layers take: weights in their checkpoint's dtype, inputs of any float dtype, plain arrays with room. */
import { getBackend } from '../backend';
import {
  BLOCK_BYTES,
  BLOCK_VALUES,
  isBlockDType,
  type BlockDType,
  type FloatData,
  type FloatDType,
} from '../core/dtype';
import { expectedError } from '../core/errors';
import type { Tensor } from '../core/tensor';
import {
  checkedProduct,
  describe,
  isFloatDType,
  isTensor,
  requireFinite,
  requireFloatTensor,
  shapeText,
} from '../core/validate';

/** A row-major parameter, f16 and bf16 as bits: a Tensor is one, and so is a tensor of a model file. */
export interface Weights {
  readonly shape: readonly number[];
  readonly dtype: FloatDType;
  readonly data: FloatData;
}

/** A matrix in GGUF's blocks of 32 along its rows, as bytes. */
export interface BlockWeights {
  readonly shape: readonly number[];
  readonly dtype: BlockDType;
  readonly data: Uint8Array;
}

/** Parameters of a linear layer, row-major. */
export type MatrixWeights = Weights | BlockWeights;

/**
 * Throws unless `matrix` is a matrix of any positive size.
 * @throws GqaError INVALID_ARGUMENT, INVALID_DTYPE, INVALID_RANK, INVALID_SHAPE, BUFFER_TOO_SMALL, DISPOSED or BUSY
 */
export function checkMatrix(argument: string, matrix: MatrixWeights): void {
  if (!isBlockDType(matrix?.dtype)) {
    checkWeights(argument, matrix, [undefined, undefined]);
    return;
  }
  const { shape, dtype, data } = matrix;
  if (!Array.isArray(shape) || !(data instanceof Uint8Array)) {
    throw expectedError('INVALID_ARGUMENT', argument, 'blocks in a Uint8Array', describe(data));
  }
  if (shape.length !== 2) {
    throw expectedError('INVALID_RANK', argument, 'shape [any, any]', shapeText(shape));
  }
  const [rows, columns] = shape as number[];
  if (!(rows > 0 && columns > 0 && columns % BLOCK_VALUES === 0)) {
    const expected = `shape [any, a multiple of ${BLOCK_VALUES}]`;
    throw expectedError('INVALID_SHAPE', argument, expected, shapeText(shape));
  }
  const blocks = checkedProduct([rows, columns / BLOCK_VALUES], argument);
  checkRoom(argument, data.length, blocks * BLOCK_BYTES[dtype]);
}

/**
 * Throws unless `weights` has the shape; undefined stands for any positive size.
 * @throws GqaError INVALID_ARGUMENT, INVALID_DTYPE, INVALID_RANK, INVALID_SHAPE, DISPOSED or BUSY
 */
export function checkWeights(
  argument: string,
  weights: Weights,
  shape: readonly (number | undefined)[],
): void {
  if (isTensor(weights)) requireFloatTensor(weights, argument);
  if (!Array.isArray(weights?.shape) || !ArrayBuffer.isView(weights.data)) {
    throw expectedError('INVALID_ARGUMENT', argument, 'a tensor', describe(weights));
  }
  if (!isFloatDType(weights.dtype)) {
    throw expectedError(
      'INVALID_DTYPE',
      argument,
      'dtype f32, f16 or bf16',
      describe(weights.dtype),
    );
  }
  const expected = `shape [${shape.map((size) => size ?? 'any').join(', ')}]`;
  const received = shapeText(weights.shape);
  if (weights.shape.length !== shape.length) {
    throw expectedError('INVALID_RANK', argument, expected, received);
  }
  const fits = (size: number | undefined, i: number): boolean =>
    size === undefined ? weights.shape[i] > 0 : size === weights.shape[i];
  if (!shape.every(fits)) {
    throw expectedError('INVALID_SHAPE', argument, expected, received);
  }
  checkRoom(argument, weights.data.length, checkedProduct(weights.shape, argument));
}

/** The values as f32: the same array where they are f32 already, else a widened copy. */
export function widen(weights: Weights): Float32Array {
  const { data, dtype } = weights;
  if (data instanceof Float32Array) return data;
  const to = new Float32Array(data.length);
  getBackend().convert({ from: data, fromDtype: dtype, to, toDtype: 'f32', count: data.length });
  return to;
}

/**
 * The rows of a tensor [..., dim] as f32, without a copy where they are f32 already.
 * @throws GqaError INVALID_ARGUMENT, INVALID_DTYPE, INVALID_RANK, INVALID_SHAPE, DISPOSED or BUSY
 */
export function inputRows(argument: string, x: Tensor, dim: number): Float32Array {
  const tensor = requireFloatTensor(x, argument);
  const rank = tensor.shape.length;
  if (rank === 0 || tensor.shape[rank - 1] !== dim) {
    const code = rank === 0 ? 'INVALID_RANK' : 'INVALID_SHAPE';
    throw expectedError(code, argument, `shape [..., ${dim}]`, shapeText(tensor.shape));
  }
  return widen(tensor);
}

/** Throws unless a plain array holds at least `needed` elements. */
export function checkRoom(argument: string, length: number, needed: number): void {
  if (length < needed) {
    throw expectedError(
      'BUFFER_TOO_SMALL',
      argument,
      `at least ${needed} elements`,
      `${length} elements`,
    );
  }
}

/** A finite number above zero. */
export function requirePositive(value: unknown, argument: string): number {
  const number = requireFinite(value, argument);
  if (number <= 0)
    throw expectedError('OUT_OF_RANGE', argument, 'a positive number', describe(value));
  return number;
}
