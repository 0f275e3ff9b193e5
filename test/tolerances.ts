/**
 * The one table of tolerances: an error is |actual - oracle| / max(1, largest |oracle|), by dtype and kind of operation.
 * Each entry says where it comes from; u is the unit roundoff of the dtype (2^-24, 2^-11, 2^-8).
 */
import type { Precision } from '../lib/core/precision';
import type { FloatName } from './support/numbers';
import type { CacheName } from './support/quantise';

export const UNIT_ROUNDOFF: Readonly<Record<FloatName, number>> = {
  f32: 2 ** -24,
  f16: 2 ** -11,
  bf16: 2 ** -8,
};

/**
 * Attention outputs, for scores up to ATTENTION_SCORE_LIMIT: an error of a score is an equal relative error of a weight,
 * and a score of 20 carries 20 u. f32 allows 34 u (score, exp2 and two sums); f16 and bf16 4 u: the output's own
 * rounding and operands that a kernel may round to the storage dtype once more. Over what a quantised cache stores, q8
 * allows its 16-bit numbers what f16 is allowed; q4, whose queries and weights are 8-bit numbers, a third of the 1/8 by
 * which its values are off from what was appended.
 */
export const ATTENTION: Readonly<Record<CacheName, number>> = {
  f32: 2e-6,
  f16: 2e-3,
  bf16: 1.6e-2,
  q8: 2e-3,
  q4: 4e-2,
};
export const ATTENTION_SCORE_LIMIT = 20;

/** The one of which more is tolerated. */
export function coarser(a: CacheName, b: CacheName): CacheName {
  return ATTENTION[a] > ATTENTION[b] ? a : b;
}

/**
 * The same with precision 'fast', where each factor of a product may be split into two bf16: what they leave out of it
 * is 2^-16 of it, and of sums, in which errors of either sign meet, a few times less. What q8 stores may be rounded to
 * bf16, as queries and weights then are.
 */
export const ATTENTION_FAST: Readonly<Record<CacheName, number>> = {
  ...ATTENTION,
  f32: 2e-5,
  q8: ATTENTION.bf16,
};

/** The tolerance of an attention output whose largest |score| is given: proportional above the limit. */
export function attentionTolerance(
  dtype: CacheName,
  largestScore: number,
  precision: Precision = 'exact',
): number {
  const table = precision === 'fast' ? ATTENTION_FAST : ATTENTION;
  return table[dtype] * Math.max(1, largestScore / ATTENTION_SCORE_LIMIT);
}

/**
 * LSE is f32 whatever the storage, an absolute error as large as a score's: the same figures, relative to max(1, |lse|).
 * Sums are of weights not yet rounded, so over q4 it is the query's 8 bits alone that count, as bf16's do.
 */
export function lseTolerance(
  dtype: CacheName,
  largestScore: number,
  precision: Precision = 'exact',
): number {
  return attentionTolerance(dtype === 'q4' ? 'bf16' : dtype, largestScore, precision);
}

/**
 * Statistics of softmax weights, shares of [0, 1]: sums over weights not yet rounded, so that an error is that of scores.
 * Those over q4 are of queries in 8 bits, off by 1/254 of a run's largest.
 */
export const STATISTICS: Readonly<Record<CacheName, number>> = {
  f32: 1e-4,
  f16: 1e-4,
  bf16: 1e-4,
  q8: 1e-4,
  q4: 4e-3,
};

/**
 * Dot products of length K over values of about 1, relative to sum |x w| (not to the result, which may cancel):
 * f32 accumulation in any order is below K u; blocked accumulation stays near sqrt(K) u. 32 u holds up to K = 1024.
 */
export const LINEAR = 32 * UNIT_ROUNDOFF.f32;
/**
 * The same where activations are rounded: 8 bits of the largest of 32, so 1 / 254 of it each, which for normal values is
 * below 2 % of the sum of magnitudes.
 */
export const LINEAR_FAST = 2e-2;
/** A norm's error times that of the products over it. */
export const FUSED_LINEAR = 2 * LINEAR;
/** Squares, mean, root, two products: 8 u, and the sum's blocked error. */
export const RMS_NORM = 16 * UNIT_ROUNDOFF.f32;
/** Two products and a sum: 3 u, doubled where a fused form rounds otherwise. */
export const ROPE = 6 * UNIT_ROUNDOFF.f32;
/** The same with a second sum, of the mean, and a bias; a mean a hundred times the spread costs a hundred u of it. */
export const LAYER_NORM = 32 * UNIT_ROUNDOFF.f32;
/** An exponential of our own (about 2 u), a sum, a quotient, a product. */
export const SWIGLU = 16 * UNIT_ROUNDOFF.f32;
/** The same of any activation function; gelu is a fit within 1.2e-7 by an exponential of up to 2 log2(1000). */
export const ACTIVATION = 2e-6;
/** Weights of a merge are exponentials of differences of LSEs, which carry the parts' own attention error. */
export const MERGE: Readonly<Record<FloatName, number>> = { f32: 4e-6, f16: 2e-3, bf16: 1.6e-2 };
/** max |difference of logits| / largest |logit|, float32 arithmetic through a whole model. */
export const MODEL_LOGITS = 1e-3;
/** The same over every position of a tiny checkpoint, by max(1, largest |logit|), where the golden is float32 too. */
export const ARCHITECTURE_LOGITS = 2e-4;
/** Greedy tokens must agree up to the first step whose top-2 margin is below this. */
export const MODEL_MARGIN = 0.05;
/** Of `precision: 'fast'`: the margin between logits above which tokens agree, and the relative error of perplexity. */
export const FAST_MARGIN = 0.5;
export const FAST_PERPLEXITY = 0.01;
/** What a gradient may differ from central differences by: max |g - g*| / max |g*|. */
export const GRADIENT_DIFFERENCES = 1e-3;
/**
 * The same from float64, where scores are up to about 20: a weight made anew from an LSE that was rounded to f32 carries the
 * error of both, and gradients sum over hundreds of rows.
 */
export const GRADIENT = 1e-5;
