/**
 * A dtype and a shape over a typed array: what goes into and comes out of every operation. Row-major, no strides.
 *
 * f16 and bf16 elements are 16 bits in a Uint16Array. Tensors made by `reshape` share memory and life with their
 * origin: disposing one disposes all, and an async call on one makes all busy.
 */
import { DTYPE_BYTES } from './dtype';
import type { DType, TypedArrayOf } from './dtype';
import { expectedError } from './errors';
import { bf16BitsToF32, f16BitsToF32, f32ToBf16Bits, f32ToF16Bits, roundToOdd } from './half';
import { DISPOSED, IDLE, TensorStorage } from './storage';
import { allocate, elementCount, requireDType, requireShape, requireTensor } from './validate';
import { describe, shapeText, stateError, typedArrayName } from './validate';

const ARRAY_TYPES = {
  f32: Float32Array,
  f16: Uint16Array,
  bf16: Uint16Array,
  i8: Int8Array,
  u8: Uint8Array,
  i32: Int32Array,
} as const;

/** The dtype that a typed array stands for where none is given. A Uint16Array is f16 or bf16: the caller says which. */
const INFERRED: Readonly<Record<string, DType | undefined>> = {
  Float32Array: 'f32',
  Int8Array: 'i8',
  Uint8Array: 'u8',
  Int32Array: 'i32',
};

const INTEGER_RANGE = {
  i8: [-128, 127],
  u8: [0, 255],
  i32: [-(2 ** 31), 2 ** 31 - 1],
} as const;

/** Symbol.dispose, or a symbol of our own on a Node that lacks it. */
export const disposeSymbol: typeof Symbol.dispose =
  Symbol.dispose ?? (Symbol.for('gqa.dispose') as unknown as typeof Symbol.dispose);

export class Tensor<D extends DType = DType> {
  readonly dtype: D;
  /** Sizes of the dimensions, frozen. */
  readonly shape: readonly number[];
  /** Number of elements. */
  readonly size: number;
  readonly byteLength: number;
  /** @internal Memory and state, shared by reshaped tensors. Read `data` instead. */
  readonly storage: TensorStorage<D>;

  /** @internal Use `from`, `view` or `zeros`. */
  private constructor(storage: TensorStorage<D>, dtype: D, shape: readonly number[], size: number) {
    this.dtype = dtype;
    this.shape = shape;
    this.size = size;
    this.byteLength = size * DTYPE_BYTES[dtype];
    this.storage = storage;
    // Kernels trust the shape: no assignment from JavaScript may change it behind the checks.
    Object.freeze(this);
  }

  /**
   * Copies numbers (never bits; booleans count as 0 and 1) into a new tensor, rounding to nearest even for floats.
   *
   * @throws GqaError INVALID_ARGUMENT, INVALID_DTYPE, INVALID_SHAPE (more values than the shape holds),
   *   BUFFER_TOO_SMALL (fewer), OUT_OF_RANGE (no integer of the dtype's range), OUT_OF_MEMORY.
   */
  static from<D extends DType = 'f32'>(
    values: ArrayLike<number | boolean>,
    shape: readonly number[],
    dtype: D = 'f32' as D,
  ): Tensor<D> {
    requireDType(dtype, 'dtype');
    const size = checkedSize(values, shape, dtype, 'values');
    const data = newData(dtype, size, 'shape');
    encode(values, data, dtype, 'values');
    return new Tensor(new TensorStorage(data), dtype, requireShape(shape, 'shape'), size);
  }

  /**
   * A tensor over the caller's memory, without a copy; a SharedArrayBuffer is welcome. A Uint16Array holds the bits
   * of f16 or bf16, so its dtype must be given.
   *
   * @throws GqaError INVALID_ARGUMENT, INVALID_DTYPE, INVALID_SHAPE, BUFFER_TOO_SMALL, BUFFER_DETACHED.
   */
  static view(data: Float32Array, shape: readonly number[], dtype?: 'f32'): Tensor<'f32'>;
  static view(data: Int8Array, shape: readonly number[], dtype?: 'i8'): Tensor<'i8'>;
  static view(data: Uint8Array, shape: readonly number[], dtype?: 'u8'): Tensor<'u8'>;
  static view(data: Int32Array, shape: readonly number[], dtype?: 'i32'): Tensor<'i32'>;
  static view<D extends DType>(
    data: TypedArrayOf<D>,
    shape: readonly number[],
    dtype: D,
  ): Tensor<D>;
  static view(data: TypedArrayOf<DType>, shape: readonly number[], dtype?: DType): Tensor {
    const found = viewDType(data, dtype);
    const size = checkedSize(data, shape, found, 'data');
    return new Tensor(new TensorStorage(data), found, requireShape(shape, 'shape'), size);
  }

  /** @throws GqaError INVALID_DTYPE, INVALID_ARGUMENT, OUT_OF_RANGE, OUT_OF_MEMORY. */
  static zeros<D extends DType = 'f32'>(
    shape: readonly number[],
    dtype: D = 'f32' as D,
  ): Tensor<D> {
    requireDType(dtype, 'dtype');
    const own = requireShape(shape, 'shape');
    const size = elementCount(own, dtype, 'shape');
    return new Tensor(new TensorStorage(newData(dtype, size, 'shape')), dtype, own, size);
  }

  /** The elements, without a copy; f16 and bf16 as bits. @throws GqaError DISPOSED, BUSY. */
  get data(): TypedArrayOf<D> {
    const storage = this.storage;
    if (storage.state !== IDLE) throw stateError(storage.state, 'tensor', 'tensor');
    return storage.data;
  }

  /** A copy of the elements as f32. @throws GqaError DISPOSED, BUSY, BUFFER_DETACHED, BUFFER_TOO_SMALL. */
  toFloat32(): Float32Array {
    return this.to('f32').storage.data;
  }

  /**
   * A copy in a dtype, the same one included: floats round to nearest even, integers must be in range.
   *
   * @throws GqaError INVALID_DTYPE, OUT_OF_RANGE, OUT_OF_MEMORY, DISPOSED, BUSY, BUFFER_DETACHED, BUFFER_TOO_SMALL.
   */
  to<E extends DType>(dtype: E): Tensor<E> {
    requireDType(dtype, 'dtype');
    requireTensor(this, 'tensor');
    const data = newData(dtype, this.size, 'tensor');
    convert(this.storage.data, this.dtype, data, dtype, this.size);
    return new Tensor(new TensorStorage(data), dtype, this.shape, this.size);
  }

  /**
   * The same elements under another shape, in the same memory: the two share one life.
   *
   * @throws GqaError INVALID_ARGUMENT, INVALID_SHAPE, OUT_OF_RANGE, DISPOSED, BUSY.
   */
  reshape(shape: readonly number[]): Tensor<D> {
    requireTensor(this, 'tensor');
    const own = requireShape(shape, 'shape');
    const size = elementCount(own, this.dtype, 'shape');
    if (size !== this.size) {
      const expected = `a shape of ${this.size} elements`;
      throw expectedError('INVALID_SHAPE', 'shape', expected, shapeText(own));
    }
    return new Tensor(this.storage, this.dtype, own, size);
  }

  /** Lets go of the memory, for reshaped tensors too; a second call does nothing. @throws GqaError BUSY. */
  dispose(): void {
    const storage = this.storage;
    if (storage.state === DISPOSED) return;
    if (storage.state !== IDLE) throw stateError(storage.state, 'tensor', 'tensor');
    storage.dispose(newData(this.dtype, 0, 'tensor'));
  }

  [disposeSymbol](): void {
    this.dispose();
  }
}

function newData<D extends DType>(dtype: D, size: number, argument: string): TypedArrayOf<D> {
  return allocate(
    () => new ARRAY_TYPES[dtype](size),
    size * DTYPE_BYTES[dtype],
    argument,
  ) as TypedArrayOf<D>;
}

/** Elements of `shape`, checked against the number of values that came for it. */
function checkedSize(
  values: ArrayLike<unknown>,
  shape: readonly number[],
  dtype: DType,
  argument: string,
): number {
  if (typeof values !== 'object' || values === null || !Number.isInteger(values.length)) {
    throw expectedError('INVALID_ARGUMENT', argument, 'an array of numbers', describe(values));
  }
  const size = elementCount(requireShape(shape, 'shape'), dtype, 'shape');
  if (values.length === size) return size;
  if (ArrayBuffer.isView(values) && values.buffer.byteLength === 0 && size > 0) {
    throw expectedError(
      'BUFFER_DETACHED',
      argument,
      `${size} elements`,
      'an empty or detached buffer',
    );
  }
  const code = values.length < size ? 'BUFFER_TOO_SMALL' : 'INVALID_SHAPE';
  const expected = `${size} elements for shape ${shapeText(shape)}`;
  throw expectedError(code, argument, expected, `${values.length} elements`);
}

function viewDType(data: unknown, dtype: DType | undefined): DType {
  const name = ArrayBuffer.isView(data) ? typedArrayName(data) : '';
  const inferred = INFERRED[name];
  if (dtype === undefined) {
    if (inferred !== undefined) return inferred;
    if (name === 'Uint16Array') {
      throw expectedError(
        'INVALID_DTYPE',
        'dtype',
        "'f16' or 'bf16' for a Uint16Array",
        'undefined',
      );
    }
  }
  if (inferred === undefined && name !== 'Uint16Array') {
    const expected = 'a Float32Array, Uint16Array, Int8Array, Uint8Array or Int32Array';
    throw expectedError('INVALID_ARGUMENT', 'data', expected, describe(data));
  }
  const found = requireDType(dtype, 'dtype');
  const needed = ARRAY_TYPES[found].name;
  if (needed !== name) {
    throw expectedError('INVALID_DTYPE', 'data', `a ${needed} for dtype ${found}`, describe(data));
  }
  return found;
}

/** Writes numbers as elements of a dtype. */
function encode(
  values: ArrayLike<unknown>,
  data: TypedArrayOf<DType>,
  dtype: DType,
  argument: string,
): void {
  const size = data.length;
  for (let i = 0; i < size; i++) {
    const value = typeof values[i] === 'boolean' ? Number(values[i]) : values[i];
    if (typeof value !== 'number') {
      throw expectedError('INVALID_ARGUMENT', `${argument}[${i}]`, 'a number', describe(value));
    }
    data[i] = encodeOne(value, dtype, argument, i);
  }
}

function encodeOne(value: number, dtype: DType, argument: string, index: number): number {
  switch (dtype) {
    case 'f32':
      return value;
    case 'f16':
      return f32ToF16Bits(roundToOdd(value));
    case 'bf16':
      return f32ToBf16Bits(roundToOdd(value));
    default: {
      const [min, max] = INTEGER_RANGE[dtype];
      if (Number.isInteger(value) && value >= min && value <= max) return value;
      const expected = `an integer from ${min} to ${max}`;
      throw expectedError('OUT_OF_RANGE', `${argument}[${index}]`, expected, describe(value));
    }
  }
}

/** Converts `count` elements; the same dtype is copied bit by bit. */
function convert(
  from: TypedArrayOf<DType>,
  fromDType: DType,
  to: TypedArrayOf<DType>,
  toDType: DType,
  count: number,
): void {
  if (fromDType === toDType) {
    to.set(from.length === count ? from : from.subarray(0, count));
    return;
  }
  for (let i = 0; i < count; i++) {
    const bits = from[i];
    const value =
      fromDType === 'f16' ? f16BitsToF32(bits) : fromDType === 'bf16' ? bf16BitsToF32(bits) : bits;
    to[i] = encodeOne(value, toDType, 'tensor', i);
  }
}
