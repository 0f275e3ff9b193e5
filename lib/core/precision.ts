/** How exactly activations are multiplied with stored values and weights. */
import { expectedError } from './errors';
import { describe } from './validate';

/**
 * 'exact': activations keep f32 accuracy. 'fast': they may be rounded where that is faster, to bf16 for bf16 keys, values
 * and weights, to the sum of two bf16 for other keys and values, for blocks to bf16 or to 8 bits with a scale per 32 of
 * them. Exact results satisfy it.
 */
export type Precision = 'exact' | 'fast';

export function requirePrecision(value: unknown): Precision {
  if (value === 'exact' || value === 'fast') return value;
  const expected = "'exact' or 'fast'";
  throw expectedError('INVALID_ARGUMENT', 'options.precision', expected, describe(value));
}
