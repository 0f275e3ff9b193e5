/** What the tables of refusals are made of. */
import { Tensor, type GqaErrorCode } from '../../lib';

/** A call that must be refused: the code, the argument's name, what is wrong with it, the call. */
export type Row = [
  code: GqaErrorCode,
  argument: string | RegExp,
  what: string,
  action: () => unknown,
];

export const zeros = (...shape: number[]) => Tensor.zeros(shape);
export const SHAPE = [1, 2, 4, 8];
export const q = () => zeros(...SHAPE);
export const kv = () => zeros(1, 3, 2, 8);
