/** Bytes of weights, as they would be stored or as a file stores them. */
import { BLOCK_BYTES, BLOCK_VALUES, DTYPE_BYTES, isBlockDType } from '../../core/dtype';
import type { WeightDType } from '../../core/dtype';
import { expectedError } from '../../core/errors';
import { describe } from '../../core/validate';

export const WEIGHT_DTYPES: readonly WeightDType[] = ['f32', 'f16', 'bf16', 'q8_0', 'q4_0', 'q4_1'];

/** What the tensors of a checkpoint are. */
export interface StoredWeights {
  parameters: number;
  bytes: number;
}

export interface WeightPlan {
  /** 'file': as the checkpoint stores them, whatever its mix. */
  dtype: WeightDType | 'file';
  bitsPerParameter: number;
  bytes: number;
  /** What a decode step of the batch reads. */
  read: number;
}

/** Scales and minimums included. */
export function bitsOf(dtype: WeightDType): number {
  return isBlockDType(dtype) ? (8 * BLOCK_BYTES[dtype]) / BLOCK_VALUES : 8 * DTYPE_BYTES[dtype];
}

/** @throws GqaError INVALID_DTYPE */
export function requireWeightDType(value: unknown, argument: string): WeightDType {
  if (WEIGHT_DTYPES.includes(value as WeightDType)) return value as WeightDType;
  const expected = `one of ${WEIGHT_DTYPES.join(', ')}`;
  throw expectedError('INVALID_DTYPE', argument, expected, describe(value));
}

/**
 * @param dtype null: as stored, or bf16 where nothing is
 * @param total parameters of the planned model
 * @param read those that a step reads
 */
export function planWeights(
  dtype: WeightDType | null,
  stored: StoredWeights | null,
  total: number,
  read: number,
): WeightPlan {
  const fromFile = dtype === null && stored !== null;
  const bits = fromFile ? (8 * stored.bytes) / stored.parameters : bitsOf(dtype ?? 'bf16');
  return {
    dtype: fromFile ? 'file' : (dtype ?? 'bf16'),
    bitsPerParameter: bits,
    bytes: Math.ceil((total * bits) / 8),
    read: Math.ceil((read * bits) / 8),
  };
}
