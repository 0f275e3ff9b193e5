/** Tensors of the package from plain numbers, through the tests' own conversions. */
import { Tensor, type FloatDType } from '../../lib';
import { encodeSmall, roundToDtype, type FloatName } from './numbers';
import { Random } from './random';

export type Bits = Float32Array | Uint16Array;
export type FloatTensor = Tensor<FloatDType>;
export interface WithLse {
  out: FloatTensor;
  lse: Tensor<'f32'>;
}

/** The dtype's storage of numbers. */
export function toBits(values: ArrayLike<number>, dtype: FloatName): Bits {
  return dtype === 'f32'
    ? Float32Array.from(values)
    : Uint16Array.from(values, (x) => encodeSmall(x, dtype));
}

export function tensor(values: ArrayLike<number>, shape: number[], dtype: FloatName): FloatTensor {
  return Tensor.view<FloatDType>(toBits(values, dtype), shape, dtype);
}

/** A prime, so that no stride of a tensor falls into step with a pool. */
const POOL = 10007;
const pools = new Map<string, number[]>();

/** `count` normal numbers that the dtype holds exactly: a run of a pool that is drawn and rounded once. */
export function normals(random: Random, count: number, dtype: FloatName, scale = 1): number[] {
  const key = `${dtype} ${scale}`;
  let pool = pools.get(key);
  if (pool === undefined) {
    pool = new Random(POOL).normals(POOL, scale).map((x) => roundToDtype(x, dtype));
    pools.set(key, pool);
  }
  const values = new Array<number>(count);
  for (let i = 0, at = random.int(0, POOL - 1); i < count; i++, at++) values[i] = pool[at % POOL];
  return values;
}

/** An uninitialised tensor for results, filled with a pattern that no kernel may leave behind. */
export function emptyOut(shape: number[], dtype: FloatName): FloatTensor {
  const count = shape.reduce((a, b) => a * b, 1);
  const data =
    dtype === 'f32' ? new Float32Array(count).fill(NaN) : new Uint16Array(count).fill(0x7fff);
  return Tensor.view<FloatDType>(data, shape, dtype);
}

/** An f32 tensor. */
export function f32Tensor(values: ArrayLike<number>, shape: number[]): Tensor<'f32'> {
  return Tensor.view(Float32Array.from(values), shape);
}
