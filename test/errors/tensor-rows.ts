/** Tensors that cannot be. */
import { Tensor } from '../../lib';
import { zeros, type Row } from './rows';

export const TENSORS: Row[] = [
  ['INVALID_ARGUMENT', 'shape', 'a shape that is no array', () => Tensor.zeros(4 as never)],
  ['INVALID_ARGUMENT', 'values', 'values that are no array', () => Tensor.from(null as never, [1])],
  [
    'INVALID_ARGUMENT',
    'values[1]',
    'a value that is no number',
    () => Tensor.from([1, 'a' as never], [2]),
  ],
  [
    'INVALID_ARGUMENT',
    'data',
    'a view of a DataView',
    () => Tensor.view(new DataView(new ArrayBuffer(4)) as never, [1]),
  ],
  ['INVALID_DTYPE', 'dtype', 'an unknown dtype', () => Tensor.zeros([1], 'f64' as never)],
  [
    'INVALID_DTYPE',
    'dtype',
    '16 bits of an unnamed dtype',
    () => Tensor.view(new Uint16Array(1) as never, [1]),
  ],
  [
    'INVALID_DTYPE',
    'data',
    'an array of another dtype',
    () => Tensor.view(new Float32Array(1) as never, [1], 'f16'),
  ],
  ['INVALID_DTYPE', 'dtype', 'a conversion to nothing known', () => zeros(1).to('q8' as never)],
  ['OUT_OF_RANGE', 'shape[0]', 'a negative size', () => Tensor.zeros([-1])],
  ['NON_FINITE', 'shape[0]', 'an infinite size', () => Tensor.zeros([Infinity])],
  ['INVALID_ARGUMENT', 'shape[1]', 'a broken size', () => Tensor.zeros([1, 1.5])],
  [
    'OUT_OF_RANGE',
    'shape',
    'more elements than a number counts',
    () => Tensor.zeros([2 ** 30, 2 ** 30]),
  ],
  [
    'OUT_OF_RANGE',
    'values[0]',
    'a value beyond its integer dtype',
    () => Tensor.from([256], [1], 'u8'),
  ],
  ['OUT_OF_MEMORY', 'shape', 'more than memory holds', () => Tensor.zeros([2 ** 45])],
  [
    'BUFFER_TOO_SMALL',
    'data',
    'a buffer smaller than its shape',
    () => Tensor.view(new Float32Array(3), [2, 2]),
  ],
  ['BUFFER_TOO_SMALL', 'values', 'fewer values than the shape', () => Tensor.from([1], [2])],
  ['INVALID_SHAPE', 'values', 'more values than the shape', () => Tensor.from([1, 2, 3], [2])],
  ['INVALID_SHAPE', 'shape', 'a reshape to another size', () => zeros(4).reshape([5])],
  [
    'BUFFER_DETACHED',
    'data',
    'a view of a detached buffer',
    () => {
      const data = new Float32Array(2);
      structuredClone(data.buffer, { transfer: [data.buffer] });
      return Tensor.view(data, [2]);
    },
  ],
];
