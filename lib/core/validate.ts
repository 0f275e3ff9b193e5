/**
 * The one place that checks arguments: each function returns the value as its type, or throws a GqaError
 * "Expected X for y but received z". Whatever runs on a hot path allocates nothing until it throws.
 */
import { DTYPE_BYTES } from './dtype';
import type { DType, FloatDType } from './dtype';
import { GqaError, expectedError } from './errors';
import type { GqaErrorCode } from './errors';
import { DISPOSED, IDLE, TensorStorage } from './storage';
import type { Tensor } from './tensor';

/** Short text for what came: "-3 of type number", "tensor [2, 3] f32", "instance of Map". */
export function describe(value: unknown): string {
  if (value === null || value === undefined) return String(value);
  if (isTensor(value)) return `tensor ${shapeText(value.shape)} ${value.dtype}`;
  if (Array.isArray(value)) return `array of length ${value.length}`;
  if (ArrayBuffer.isView(value)) {
    const tag = typedArrayName(value);
    return `${tag === '' ? 'DataView' : tag} of ${value.byteLength} bytes`;
  }
  if (typeof value === 'object') return `instance of ${value.constructor?.name ?? 'Object'}`;
  if (typeof value === 'string') return `'${value.slice(0, 40)}' of type string`;
  if (typeof value === 'number' || typeof value === 'boolean' || typeof value === 'bigint') {
    return `${value} of type ${typeof value}`;
  }
  return `a ${typeof value}`;
}

export function shapeText(shape: readonly number[]): string {
  return `[${shape.join(', ')}]`;
}

/** 'Float32Array' and the like, whichever realm it comes from; '' for a DataView. */
export function typedArrayName(view: ArrayBufferView): string {
  return (view as { [Symbol.toStringTag]?: string })[Symbol.toStringTag] ?? '';
}

// ---- numbers

/** A finite number that is still finite as an f32, which kernels compute in. */
export function requireFinite(value: unknown, argument: string): number {
  if (typeof value !== 'number') {
    throw expectedError('INVALID_ARGUMENT', argument, 'a finite number', describe(value));
  }
  if (!Number.isFinite(Math.fround(value))) {
    throw expectedError('NON_FINITE', argument, 'a number finite in f32', describe(value));
  }
  return value;
}

/** An integer in [min, max]. */
export function requireInteger(
  value: unknown,
  argument: string,
  min: number,
  max: number = Number.MAX_SAFE_INTEGER,
): number {
  if (Number.isInteger(value) && (value as number) >= min && (value as number) <= max) {
    return value as number;
  }
  let code: GqaErrorCode = 'OUT_OF_RANGE';
  if (typeof value !== 'number') code = 'INVALID_ARGUMENT';
  else if (!Number.isFinite(value)) code = 'NON_FINITE';
  else if (!Number.isInteger(value)) code = 'INVALID_ARGUMENT';
  throw expectedError(code, argument, rangeText(min, max), describe(value));
}

function rangeText(min: number, max: number): string {
  if (max !== Number.MAX_SAFE_INTEGER) return `an integer from ${min} to ${max}`;
  if (min === 1) return 'a positive integer';
  return min === 0 ? 'a non-negative integer' : `an integer of at least ${min}`;
}

/** A window: a positive integer, or Infinity for none. */
export function requireWindow(value: unknown, argument: string): number {
  if (value === Infinity) return Infinity;
  return requireInteger(value, argument, 1);
}

export function requireBoolean(value: unknown, argument: string): boolean {
  if (typeof value !== 'boolean') {
    throw expectedError('INVALID_ARGUMENT', argument, 'a boolean', describe(value));
  }
  return value;
}

/** An object that is no array, no function and no tensor: a bag of options. */
export function requireOptions(value: unknown, argument: string): void {
  if (typeof value !== 'object' || value === null || Array.isArray(value) || isTensor(value)) {
    throw expectedError('INVALID_ARGUMENT', argument, 'an object', describe(value));
  }
}

// ---- dtypes and shapes

export function requireDType(value: unknown, argument: string): DType {
  if (typeof value === 'string' && Object.hasOwn(DTYPE_BYTES, value)) return value as DType;
  const expected = Object.keys(DTYPE_BYTES).join(', ');
  throw expectedError('INVALID_DTYPE', argument, `one of ${expected}`, describe(value));
}

export function isFloatDType(dtype: unknown): dtype is FloatDType {
  return dtype === 'f32' || dtype === 'f16' || dtype === 'bf16';
}

/** A product of sizes, each a non-negative integer, that a number holds exactly. */
export function checkedProduct(sizes: readonly number[], argument: string): number {
  let product = 1;
  for (const size of sizes) {
    // A zero makes the product zero, however large the others are.
    if (size === 0) return 0;
  }
  for (const size of sizes) {
    product *= size;
    if (product > Number.MAX_SAFE_INTEGER) {
      const text = sizes.join(' * ');
      throw expectedError('OUT_OF_RANGE', argument, 'a size of at most 2^53 - 1', text);
    }
  }
  return product;
}

function isSize(value: unknown): boolean {
  return Number.isSafeInteger(value) && (value as number) >= 0;
}

/** A frozen copy of a shape. */
export function requireShape(value: unknown, argument: string): readonly number[] {
  if (!Array.isArray(value)) {
    throw expectedError('INVALID_ARGUMENT', argument, 'an array of sizes', describe(value));
  }
  const shape = value.slice() as unknown[];
  for (let i = 0; i < shape.length; i++) {
    // The name of the dimension is put together only for an error.
    if (!isSize(shape[i])) requireInteger(shape[i], `${argument}[${i}]`, 0);
  }
  return Object.freeze(shape) as readonly number[];
}

/** Elements of a shape; their bytes are addressable too. */
export function elementCount(shape: readonly number[], dtype: DType, argument: string): number {
  const count = checkedProduct(shape, argument);
  checkedProduct([count, DTYPE_BYTES[dtype]], argument);
  return count;
}

// ---- tensors

/** Elements of a head at most: far beyond any model, and a row of them still fits a thread's scratch. */
export const MAX_HEAD_DIM = 2 ** 20;

export function isTensor(value: unknown): value is Tensor {
  return (
    typeof value === 'object' &&
    value !== null &&
    (value as Partial<Tensor>).storage instanceof TensorStorage
  );
}

/** A tensor that is neither disposed nor busy and whose memory is still there. */
export function requireTensor(value: unknown, argument: string): Tensor {
  if (!isTensor(value)) {
    throw expectedError('INVALID_ARGUMENT', argument, 'a Tensor', describe(value));
  }
  const storage = value.storage;
  if (storage.state !== IDLE) throw stateError(storage.state, argument, 'tensor');
  if (storage.data.length < value.size) throw lostMemoryError(value, argument);
  return value;
}

/** Throws where the memory could shrink under an async call. */
export function checkFixedLength(tensor: Tensor, argument: string): void {
  // Node 20 has resizable buffers, its type declarations do not.
  if ((tensor.storage.buffer as { resizable?: boolean }).resizable === true) {
    const expected = 'memory of a fixed length';
    throw expectedError('INVALID_ARGUMENT', argument, expected, 'a resizable ArrayBuffer');
  }
}

/** A usable tensor of an f32, f16 or bf16 dtype. */
export function requireFloatTensor(value: unknown, argument: string): Tensor<FloatDType> {
  const tensor = requireTensor(value, argument);
  if (!isFloatDType(tensor.dtype)) {
    throw expectedError('INVALID_DTYPE', argument, 'dtype f32, f16 or bf16', tensor.dtype);
  }
  return tensor as Tensor<FloatDType>;
}

/** A usable tensor of exactly this dtype. */
export function requireTensorOf<D extends DType>(
  value: unknown,
  dtype: D,
  argument: string,
): Tensor<D> {
  const tensor = requireTensor(value, argument);
  if (tensor.dtype !== dtype) {
    throw expectedError('INVALID_DTYPE', argument, `dtype ${dtype}`, tensor.dtype);
  }
  return tensor as Tensor<D>;
}

/** Throws unless the tensor has this rank; `dims` names them, e.g. '[batch, tokens, heads, headDim]'. */
export function checkRank(tensor: Tensor, rank: number, argument: string, dims: string): void {
  if (tensor.shape.length !== rank) {
    const expected = `a tensor of rank ${rank}, ${dims},`;
    throw expectedError('INVALID_RANK', argument, expected, describe(tensor));
  }
}

/** Throws unless the tensor is [size]. */
export function checkVector(tensor: Tensor, size: number, argument: string, dims: string): void {
  checkRank(tensor, 1, argument, dims);
  if (tensor.shape[0] !== size) throw shapeError(argument, [size], tensor);
}

/** Throws unless the tensor is [a, b, c]. */
export function checkShape3(tensor: Tensor, a: number, b: number, c: number, argument: string) {
  const shape = tensor.shape;
  if (shape.length !== 3 || shape[0] !== a || shape[1] !== b || shape[2] !== c) {
    checkRank(tensor, 3, argument, shapeText([a, b, c]));
    throw shapeError(argument, [a, b, c], tensor);
  }
}

/** Throws unless the tensor is [a, b, c, d]. */
export function checkShape4(
  tensor: Tensor,
  a: number,
  b: number,
  c: number,
  d: number,
  argument: string,
): void {
  const shape = tensor.shape;
  if (shape.length !== 4 || shape[0] !== a || shape[1] !== b || shape[2] !== c || shape[3] !== d) {
    checkRank(tensor, 4, argument, shapeText([a, b, c, d]));
    throw shapeError(argument, [a, b, c, d], tensor);
  }
}

export function shapeError(
  argument: string,
  expected: readonly (number | string)[],
  tensor: Tensor,
): GqaError {
  const text = `shape [${expected.join(', ')}]`;
  return expectedError('INVALID_SHAPE', argument, text, shapeText(tensor.shape));
}

/** Throws if an output shares bytes with an input. */
export function checkNoOverlap(out: Tensor, input: Tensor, outName: string, inputName: string) {
  const a = out.storage;
  const b = input.storage;
  if (a.buffer !== b.buffer) return;
  const aEnd = a.byteOffset + out.byteLength;
  const bEnd = b.byteOffset + input.byteLength;
  // An empty range overlaps nothing.
  if (a.byteOffset >= bEnd || b.byteOffset >= aEnd) return;
  if (out.byteLength === 0 || input.byteLength === 0) return;
  const expected = `memory apart from ${inputName}`;
  const received = `bytes ${a.byteOffset} to ${aEnd} of a buffer where ${inputName} has ${b.byteOffset} to ${bEnd}`;
  throw expectedError('OVERLAP', outName, expected, received);
}

// ---- the life of handles

/** The error for a handle that is disposed or busy; `what` says what it is, e.g. 'tensor'. */
export function stateError(state: number, argument: string, what: string): GqaError {
  return state === DISPOSED
    ? expectedError('DISPOSED', argument, `a ${what} in use`, `a disposed ${what}`)
    : expectedError('BUSY', argument, `an idle ${what}`, `a ${what} that an async call uses`);
}

function lostMemoryError(tensor: Tensor, argument: string): GqaError {
  const { data, buffer } = tensor.storage;
  const expected = `${tensor.size} elements`;
  return buffer.byteLength === 0
    ? expectedError('BUFFER_DETACHED', argument, expected, 'a detached buffer')
    : expectedError('BUFFER_TOO_SMALL', argument, expected, `${data.length} elements`);
}

/** Runs an allocation; a failure becomes OUT_OF_MEMORY. */
export function allocate<T>(make: () => T, bytes: number, argument: string): T {
  try {
    return make();
  } catch (cause) {
    // What engines throw for an allocation that fails, or for a length beyond their limit.
    const short =
      cause instanceof GqaError ? cause.code === 'OUT_OF_MEMORY' : cause instanceof RangeError;
    if (!short) throw cause;
    const received = `${bytes} bytes`;
    const message = `Expected a size that memory holds for ${argument} but received ${received}`;
    throw new GqaError('OUT_OF_MEMORY', message, {
      argument,
      expected: 'a size that memory holds',
      received,
      cause,
    });
  }
}
