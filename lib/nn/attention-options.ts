/** What an attention module is made from. */
import { expectedError } from '../core/errors';
import { MAX_HEAD_DIM, requireFinite, requireInteger, requireOptions } from '../core/validate';
import { Rope } from './rope';
import type { RopeOptions } from './rope';

export interface GroupedQueryAttentionOptions {
  /** Width of inputs and outputs. */
  dModel: number;
  heads: number;
  /** Divides heads: heads / kvHeads query heads share one KV head. */
  kvHeads: number;
  /** Default dModel / heads, which must then be whole. */
  headDim?: number;
  /** Whether the four projections have biases; default false. */
  bias?: boolean;
  /** Probability that an attention weight is dropped while training; default 0. */
  dropout?: number;
  /** Rotary positions for queries and keys: true for theta 10,000, options, or a Rope shared with other layers. */
  rope?: boolean | Omit<RopeOptions, 'headDim'> | Rope;
  /** Of the initial weights and of dropout; default 0. */
  seed?: number;
}

export interface AttentionSizes {
  dModel: number;
  heads: number;
  kvHeads: number;
  headDim: number;
}

export function requireSizes(options: GroupedQueryAttentionOptions): AttentionSizes {
  requireOptions(options, 'options');
  const dModel = requireInteger(options.dModel, 'options.dModel', 1);
  const heads = requireInteger(options.heads, 'options.heads', 1);
  const kvHeads = requireInteger(options.kvHeads, 'options.kvHeads', 1);
  if (heads % kvHeads !== 0) {
    const expected = `a divisor of heads (${heads})`;
    throw expectedError('HEADS_NOT_DIVISIBLE', 'options.kvHeads', expected, String(kvHeads));
  }
  if (options.headDim === undefined && dModel % heads !== 0) {
    const expected = `a multiple of heads (${heads}), or headDim given,`;
    throw expectedError('INVALID_SHAPE', 'options.dModel', expected, String(dModel));
  }
  const given = options.headDim ?? dModel / heads;
  const headDim = requireInteger(given, 'options.headDim', 1, MAX_HEAD_DIM);
  return { dModel, heads, kvHeads, headDim };
}

export function requireProbability(value: unknown, argument: string): number {
  const probability = requireFinite(value, argument);
  if (probability >= 0 && probability < 1) return probability;
  throw expectedError('OUT_OF_RANGE', argument, 'a number from 0 to below 1', String(value));
}

/** @throws GqaError INVALID_ARGUMENT, INVALID_SHAPE (a Rope for heads of another size), and what Rope throws */
export function makeRope(rope: GroupedQueryAttentionOptions['rope'], headDim: number): Rope | null {
  if (rope === undefined || rope === false) return null;
  if (rope === true) return new Rope({ headDim });
  if (!(rope instanceof Rope)) {
    requireOptions(rope, 'options.rope');
    return new Rope({ ...rope, headDim });
  }
  if (rope.headDim !== headDim) {
    const expected = `a Rope with headDim ${headDim}`;
    throw expectedError('INVALID_SHAPE', 'options.rope', expected, String(rope.headDim));
  }
  return rope;
}
