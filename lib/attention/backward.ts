/** The gradients of attention over tensors, for training. */
import { getBackend } from '../backend';
import { expectedError } from '../core/errors';
import { Tensor } from '../core/tensor';
import { checkShape3, checkShape4, describe } from '../core/validate';
import { requireOptions, requireTensorOf } from '../core/validate';
import { AttentionCall } from './call';
import type { AttentionFeatures } from './options';

/** Features of attention whose gradients are not computed. */
const WITHOUT_GRADIENT = ['mask', 'bias', 'alibiSlopes', 'sinkLogits', 'dropout'] as const;

/** What attention gave, the gradient of the loss by it, and the features it was called with. */
export interface AttentionBackwardOptions extends Pick<
  AttentionFeatures,
  'causal' | 'window' | 'sinkTokens' | 'scale' | 'softcap'
> {
  /** [B, Tq, Hq, Dv], and its LSE [B, Tq, Hq]: as attention returned them with `returnLse: true`. */
  out: Tensor<'f32'>;
  lse: Tensor<'f32'>;
  /** [B, Tq, Hq, Dv]: the gradient by out. */
  gradOut: Tensor<'f32'>;
}

/** Of the shapes of q, k and v. */
export interface AttentionGradients {
  gradQ: Tensor<'f32'>;
  gradK: Tensor<'f32'>;
  gradV: Tensor<'f32'>;
}

/**
 * The gradients by q, k and v of a loss whose gradient by attention's output is gradOut; weights are made anew from the
 * LSE, and memory does not grow with Tq Tk [FlashAttention-2, arXiv:2307.08691]. A key's gradient sums over the query
 * heads of its group. A row that sees no key has no part in any gradient. Inputs must be finite: a NaN or an Infinity
 * may spread to gradients of what does not see it.
 *
 * @param q [B, Tq, Hq, D], k [B, Tk, Hkv, D] and v [B, Tk, Hkv, Dv], all f32
 * @throws GqaError INVALID_ARGUMENT (features without gradients included), INVALID_RANK, INVALID_SHAPE, INVALID_DTYPE,
 *   HEADS_NOT_DIVISIBLE, NON_FINITE, OUT_OF_RANGE, OVERLAP, BUFFER_DETACHED, BUFFER_TOO_SMALL, DISPOSED, BUSY,
 *   OUT_OF_MEMORY.
 */
export function attentionBackward(
  q: Tensor<'f32'>,
  k: Tensor<'f32'>,
  v: Tensor<'f32'>,
  options: AttentionBackwardOptions,
): AttentionGradients {
  requireOptions(options, 'options');
  const { causal, window, sinkTokens, scale, softcap } = options;
  const out = requireTensorOf(options.out, 'f32', 'options.out');
  const lse = requireTensorOf(options.lse, 'f32', 'options.lse');
  const gradOut = requireTensorOf(options.gradOut, 'f32', 'options.gradOut');
  refuseOthers(options);
  const query = requireTensorOf(q, 'f32', 'q');
  const call = new AttentionCall();
  call.fill(query, k, v, { causal, window, sinkTokens, scale, softcap, out });
  const { args } = call;
  const { batch, queryTokens, heads, valueDim } = args;
  checkShape3(lse, batch, queryTokens, heads, 'options.lse');
  checkShape4(gradOut, batch, queryTokens, heads, valueDim, 'options.gradOut');

  const gradients = {
    gradQ: Tensor.zeros(query.shape, 'f32'),
    gradK: Tensor.zeros(k.shape, 'f32'),
    gradV: Tensor.zeros(v.shape, 'f32'),
  };
  if (batch === 0 || queryTokens === 0 || args.keyTokens === 0) return gradients;
  getBackend().attendBackward({
    ...args,
    q: query.storage.data,
    k: k.storage.data,
    v: v.storage.data,
    out: out.storage.data,
    lse: lse.storage.data,
    gradOut: gradOut.storage.data,
    gradQ: gradients.gradQ.storage.data,
    gradK: gradients.gradK.storage.data,
    gradV: gradients.gradV.storage.data,
  });
  return gradients;
}

function refuseOthers(options: object): void {
  for (const name of WITHOUT_GRADIENT) {
    const value = (options as Record<string, unknown>)[name];
    if (value === undefined) continue;
    const expected = 'undefined: no gradient goes through it';
    throw expectedError('INVALID_ARGUMENT', `options.${name}`, expected, describe(value));
  }
}
