/** Tensors: what is copied, what is shared, how numbers become elements, and every refusal. */
import { Tensor } from '../../../lib';
import type { DType } from '../../../lib';
import { errorOf } from '../refusals';

function detach(array: Float32Array): void {
  structuredClone(array.buffer, { transfer: [array.buffer as ArrayBuffer] });
}

describe('from', () => {
  test.each([
    ['f32', [1, -2.5, 0.1], [1, -2.5, Math.fround(0.1)]],
    ['f16', [1, -2.5, 65520], [0x3c00, 0xc100, 0x7c00]],
    ['bf16', [1, -2.5, 1e39], [0x3f80, 0xc020, 0x7f80]],
    ['i8', [-128, 127, 0], [-128, 127, 0]],
    ['u8', [255, true, false], [255, 1, 0]],
    ['i32', [-(2 ** 31), 2 ** 31 - 1, 7], [-(2 ** 31), 2 ** 31 - 1, 7]],
  ] as [DType, number[], number[]][])('writes %s elements', (dtype, values, elements) => {
    const tensor = Tensor.from(values, [3, 1], dtype);
    expect([...tensor.data]).toEqual(elements);
    expect(tensor.dtype).toBe(dtype);
    expect(tensor.shape).toEqual([3, 1]);
    expect(tensor.size).toBe(3);
    expect(tensor.byteLength).toBe(tensor.data.byteLength);
  });

  test('rounds a double to a half float once', () => {
    // To f32 first, this would be a tie and go down to 1.
    const above = 1 + 2 ** -11 + 2 ** -40;
    expect(Tensor.from([above], [1], 'f16').data[0]).toBe(0x3c01);
    expect(Tensor.from([1 + 2 ** -8 + 2 ** -40], [1], 'bf16').data[0]).toBe(0x3f81);
  });

  test('copies, and takes numbers from a Uint16Array, not bits', () => {
    const values = Float32Array.of(1, 2);
    const tensor = Tensor.from(values, [2]);
    values[0] = 9;
    expect([...tensor.data]).toEqual([1, 2]);
    expect(Tensor.from(Uint16Array.of(1), [1], 'f16').data[0]).toBe(0x3c00);
  });

  test('takes a scalar and empty shapes', () => {
    expect(Tensor.from([4], []).size).toBe(1);
    expect(Tensor.from([], [3, 0]).size).toBe(0);
    expect(Tensor.zeros([2 ** 40, 0, 2 ** 40]).size).toBe(0);
  });

  const from = Tensor.from.bind(Tensor) as (...args: unknown[]) => Tensor;
  test.each([
    ['INVALID_ARGUMENT values', () => from('12', [2])],
    ['INVALID_ARGUMENT values', () => from(null, [2])],
    ['INVALID_ARGUMENT values[1]', () => from([1, '2'], [2])],
    ['INVALID_ARGUMENT values[0]', () => from([[1], [2]], [2])],
    ['INVALID_ARGUMENT values[0]', () => from([1n], [1], 'i32')],
    ['OUT_OF_RANGE values[1]', () => from([0, 128], [2], 'i8')],
    ['OUT_OF_RANGE values[0]', () => from([-1], [1], 'u8')],
    ['OUT_OF_RANGE values[0]', () => from([2 ** 31], [1], 'i32')],
    ['OUT_OF_RANGE values[0]', () => from([0.5], [1], 'i32')],
    ['OUT_OF_RANGE values[0]', () => from([NaN], [1], 'u8')],
    ['INVALID_DTYPE dtype', () => from([1], [1], 'f64')],
    ['INVALID_DTYPE dtype', () => from([1], [1], 'toString')],
    ['INVALID_DTYPE dtype', () => from([1], [1], null)],
    ['BUFFER_TOO_SMALL values', () => from([1], [2])],
    ['INVALID_SHAPE values', () => from([1, 2, 3], [2])],
    ['INVALID_ARGUMENT shape', () => from([1], 1)],
    ['OUT_OF_RANGE shape[1]', () => from([1], [1, -1])],
    ['INVALID_ARGUMENT shape[0]', () => from([1], [1.5])],
    ['NON_FINITE shape[0]', () => from([1], [Infinity])],
    ['INVALID_ARGUMENT shape[0]', () => from([1], ['1'])],
    ['OUT_OF_RANGE shape', () => from([1], [2 ** 30, 2 ** 30])],
    ['OUT_OF_RANGE shape', () => from([1], [2 ** 52])],
    ['OUT_OF_MEMORY shape', () => Tensor.zeros([2 ** 40])],
  ])('refuses with %s (%#)', (expected, run) => {
    expect(errorOf(run)).toBe(expected);
  });
});

describe('view', () => {
  test('shares the memory, of a SharedArrayBuffer too', () => {
    const data = new Float32Array(new SharedArrayBuffer(24), 8);
    const tensor = Tensor.view(data, [2, 2]);
    expect(tensor.data).toBe(data);
    data[3] = 5;
    expect(tensor.data[3]).toBe(5);
  });

  test.each([
    [new Float32Array(2), 'f32'],
    [new Int8Array(2), 'i8'],
    [new Uint8Array(2), 'u8'],
    [Buffer.alloc(2), 'u8'],
    [new Int32Array(2), 'i32'],
  ])('infers the dtype of %p', (data, dtype) => {
    expect(Tensor.view(data as Float32Array, [2]).dtype).toBe(dtype);
  });

  const view = Tensor.view.bind(Tensor) as (...args: unknown[]) => Tensor;
  test.each([
    ['INVALID_DTYPE dtype', () => view(new Uint16Array(1), [1])],
    ['INVALID_DTYPE data', () => view(new Uint16Array(1), [1], 'f32')],
    ['INVALID_DTYPE data', () => view(new Float32Array(1), [1], 'f16')],
    ['INVALID_DTYPE dtype', () => view(new Float32Array(1), [1], 'f64')],
    ['INVALID_ARGUMENT data', () => view(new Float64Array(1), [1])],
    ['INVALID_ARGUMENT data', () => view(new Uint8ClampedArray(1), [1], 'u8')],
    ['INVALID_ARGUMENT data', () => view(new DataView(new ArrayBuffer(4)), [1], 'f32')],
    ['INVALID_ARGUMENT data', () => view(new ArrayBuffer(4), [1])],
    ['INVALID_ARGUMENT data', () => view([1], [1])],
    ['INVALID_ARGUMENT data', () => view(undefined, [1])],
    ['BUFFER_TOO_SMALL data', () => view(new Float32Array(3), [2, 2])],
    ['INVALID_SHAPE data', () => view(new Float32Array(5), [2, 2])],
  ])('refuses with %s (%#)', (expected, run) => {
    expect(errorOf(run)).toBe(expected);
  });

  test('refuses a detached buffer, when made and when used', () => {
    const data = new Float32Array(2);
    const tensor = Tensor.view(data, [2]);
    detach(data);
    expect(errorOf(() => Tensor.view(data, [2]))).toBe('BUFFER_DETACHED data');
    expect(errorOf(() => tensor.toFloat32())).toBe('BUFFER_DETACHED tensor');
    expect(errorOf(() => tensor.to('f16'))).toBe('BUFFER_DETACHED tensor');
    expect(errorOf(() => tensor.reshape([1, 2]))).toBe('BUFFER_DETACHED tensor');
  });

  test('refuses a buffer that has shrunk', () => {
    type Resizable = ArrayBuffer & { resize(bytes: number): void };
    const Buffers = ArrayBuffer as unknown as new (
      bytes: number,
      options: { maxByteLength: number },
    ) => Resizable;
    const buffer = new Buffers(16, { maxByteLength: 16 });
    const tensor = Tensor.view(new Float32Array(buffer), [4]);
    buffer.resize(8);
    expect(errorOf(() => tensor.toFloat32())).toBe('BUFFER_TOO_SMALL tensor');
  });
});

describe('conversion', () => {
  test('toFloat32 and to copy, the same dtype too', () => {
    const tensor = Tensor.from([1.5, -3], [2], 'f16');
    expect([...tensor.toFloat32()]).toEqual([1.5, -3]);
    const same = tensor.to('f16');
    expect(same.data).toEqual(tensor.data);
    expect(same.data).not.toBe(tensor.data);
    const f32 = Tensor.from([1], [1]);
    expect(f32.toFloat32()).not.toBe(f32.data);
  });

  test('goes between every two dtypes', () => {
    const dtypes = ['f32', 'f16', 'bf16', 'i8', 'u8', 'i32'] as const;
    for (const from of dtypes) {
      for (const to of dtypes) {
        const converted = Tensor.from([0, 1, 100], [3, 1], from).to(to);
        expect([converted.dtype, ...converted.shape]).toEqual([to, 3, 1]);
        expect([...converted.toFloat32()]).toEqual([0, 1, 100]);
      }
    }
  });

  test('refuses what an integer dtype cannot hold', () => {
    expect(errorOf(() => Tensor.from([1, 300], [2]).to('u8'))).toBe('OUT_OF_RANGE tensor[1]');
    expect(errorOf(() => Tensor.from([0.5], [1]).to('i8'))).toBe('OUT_OF_RANGE tensor[0]');
    expect(errorOf(() => Tensor.from([1], [1]).to('f64' as 'f32'))).toBe('INVALID_DTYPE dtype');
  });
});

describe('reshape and dispose', () => {
  test('a reshaped tensor shares memory and life', () => {
    const tensor = Tensor.from([1, 2, 3, 4], [4]);
    const square = tensor.reshape([2, 2]);
    expect(square.data).toBe(tensor.data);
    square.dispose();
    expect(errorOf(() => tensor.data)).toBe('DISPOSED tensor');
    expect(errorOf(() => square.data)).toBe('DISPOSED tensor');
  });

  test('reshape refuses another number of elements', () => {
    const tensor = Tensor.from([1, 2, 3, 4], [4]);
    expect(errorOf(() => tensor.reshape([3]))).toBe('INVALID_SHAPE shape');
    expect(errorOf(() => tensor.reshape([2 ** 53, 4]))).toBe('OUT_OF_RANGE shape[0]');
  });

  test('after dispose every method is refused but dispose; shape and dtype stay', () => {
    const tensor = Tensor.from([1, 2], [2], 'bf16');
    tensor.dispose();
    tensor.dispose();
    tensor[Symbol.dispose]();
    expect(errorOf(() => tensor.data)).toBe('DISPOSED tensor');
    expect(errorOf(() => tensor.toFloat32())).toBe('DISPOSED tensor');
    expect(errorOf(() => tensor.to('f32'))).toBe('DISPOSED tensor');
    expect(errorOf(() => tensor.reshape([1, 2]))).toBe('DISPOSED tensor');
    expect([tensor.dtype, ...tensor.shape]).toEqual(['bf16', 2]);
  });

  test('shape cannot be changed, nor the tensor', () => {
    const given = [2];
    const tensor = Tensor.zeros(given);
    given[0] = 3;
    expect(tensor.shape).toEqual([2]);
    expect(() => (tensor.shape as number[]).push(1)).toThrow(TypeError);
    expect(() => ((tensor as { size: number }).size = 9)).toThrow(TypeError);
  });
});
