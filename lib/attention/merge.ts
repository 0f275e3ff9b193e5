/** Exact union of attention over disjoint key sets, from each part's output and LSE. */
import { getBackend } from '../backend';
import type { MergeArgs } from '../backend/contract';
import type { FloatDType } from '../core/dtype';
import { expectedError } from '../core/errors';
import { Tensor } from '../core/tensor';
import { checkRank, checkShape3, checkShape4, describe } from '../core/validate';
import { requireFloatTensor, requireOptions, requireTensorOf } from '../core/validate';
import type { AttentionWithLse } from './options';

/**
 * Merges the results of the same queries over disjoint key sets: out = sum_i exp(lse_i - lse) out_i with
 * lse = log(sum_i exp(lse_i)). Sink logits must have been part of exactly one of them.
 *
 * @param parts at least one { out [B, Tq, Hq, Dv], lse f32 [B, Tq, Hq] }, all of one shape and dtype
 * @returns the same of the union, in the parts' dtype
 * @throws GqaError INVALID_ARGUMENT, INVALID_RANK, INVALID_SHAPE, INVALID_DTYPE, DISPOSED, BUSY, BUFFER_DETACHED,
 *   BUFFER_TOO_SMALL, OUT_OF_MEMORY.
 */
export function mergeAttention<D extends FloatDType>(
  parts: readonly AttentionWithLse<D>[],
): AttentionWithLse<D> {
  if (!Array.isArray(parts) || parts.length === 0) {
    const expected = 'an array of at least one { out, lse }';
    throw expectedError('INVALID_ARGUMENT', 'parts', expected, describe(parts));
  }
  const checked: MergeArgs['parts'] = [];
  let first: Tensor<FloatDType> | null = null;
  for (let i = 0; i < parts.length; i++) {
    const part = checkPart(parts[i], first, `parts[${i}]`);
    first ??= part.out;
    checked.push({ out: part.out.storage.data, lse: part.lse.storage.data });
  }
  const { shape, dtype } = first!;
  const out = Tensor.zeros(shape, dtype);
  const lse = Tensor.zeros(shape.slice(0, 3), 'f32');
  if (out.size > 0) {
    getBackend().merge({
      parts: checked,
      dtype,
      out: out.storage.data,
      lse: lse.storage.data,
      rows: lse.size,
      valueDim: shape[3],
    });
  }
  return { out: out as Tensor<D>, lse };
}

function checkPart(
  part: unknown,
  first: Tensor<FloatDType> | null,
  argument: string,
): AttentionWithLse {
  requireOptions(part, argument);
  const given = part as Partial<AttentionWithLse>;
  const out = requireFloatTensor(given.out, `${argument}.out`);
  const lse = requireTensorOf(given.lse, 'f32', `${argument}.lse`);
  checkRank(out, 4, `${argument}.out`, '[batch, tokens, heads, valueDim]');
  const [batch, tokens, heads, valueDim] = (first ?? out).shape;
  checkShape4(out, batch, tokens, heads, valueDim, `${argument}.out`);
  checkShape3(lse, batch, tokens, heads, `${argument}.lse`);
  if (first !== null && out.dtype !== first.dtype) {
    const expected = `the first part's dtype ${first.dtype}`;
    throw expectedError('INVALID_DTYPE', `${argument}.out`, expected, out.dtype);
  }
  return { out, lse };
}
