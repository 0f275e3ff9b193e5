/** Tensors of the package from plain numbers, through the tests' own conversions. */
import { Tensor } from '../../lib';
import { encodeSmall, roundToDtype, type FloatName } from './numbers';
import { Random } from './random';

export type Bits = Float32Array | Uint16Array;

/** The dtype's storage of numbers. */
export function toBits(values: ArrayLike<number>, dtype: FloatName): Bits {
  return dtype === 'f32'
    ? Float32Array.from(values)
    : Uint16Array.from(values, (x) => encodeSmall(x, dtype));
}

export function tensor(values: ArrayLike<number>, shape: number[], dtype: FloatName): Tensor {
  return Tensor.view(toBits(values, dtype), shape, dtype) as Tensor;
}

/** `count` normal numbers that the dtype holds exactly. */
export function normals(random: Random, count: number, dtype: FloatName, scale = 1): number[] {
  return random.normals(count, scale).map((x) => roundToDtype(x, dtype));
}

/** An uninitialised tensor for results, filled with a pattern that no kernel may leave behind. */
export function emptyOut(shape: number[], dtype: FloatName): Tensor {
  const count = shape.reduce((a, b) => a * b, 1);
  const data = dtype === 'f32' ? new Float32Array(count).fill(NaN) : new Uint16Array(count).fill(0x7fff);
  return Tensor.view(data, shape, dtype) as Tensor;
}

export function floats(t: Tensor): Float32Array {
  return t.data as Float32Array;
}
