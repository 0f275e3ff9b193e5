/** Checks of the options that shape scores and of the caller's output. */
import type { AttendArgs, Broadcast } from '../backend/contract';
import { requireStats } from '../core/attention-stats';
import type { FloatDType, TypedArrayOf } from '../core/dtype';
import { expectedError } from '../core/errors';
import { fillScoreArgs } from '../core/score-options';
import type { Tensor } from '../core/tensor';
import * as check from '../core/validate';
import type { AttentionCall } from './call';

const MAX_SEED = 2 ** 32 - 1;

/** scale, softcap, dropout, precision, the per-head vectors and whether there are statistics. */
export function fillFeatures(call: AttentionCall): void {
  const { args, options } = call;
  fillScoreArgs(args, options);
  const { probability, seed, stats } = options;
  call.stats = stats === undefined ? null : requireStats(stats, 'options.stats');
  args.dropout = probability === undefined ? null : requireDropout(probability, seed);
}

function requireDropout(probability: unknown, seed: unknown): AttendArgs['dropout'] {
  const p = check.requireFinite(probability, 'options.dropout.probability');
  if (p < 0 || p >= 1) {
    const expected = 'at least 0 and below 1';
    throw expectedError('OUT_OF_RANGE', 'options.dropout.probability', expected, String(p));
  }
  const checkedSeed = check.requireInteger(seed, 'options.dropout.seed', 0, MAX_SEED);
  return p === 0 ? null : { probability: p, seed: checkedSeed };
}

/** mask and bias, [B|1, Hq|1, Tq, Tk] each. */
export function fillPlanes(call: AttentionCall): void {
  const { args, options } = call;
  args.mask = null;
  args.bias = null;
  if (options.mask !== undefined) {
    const mask = check.requireTensorOf(options.mask, 'u8', 'options.mask');
    args.mask = broadcast(args, mask, call.mask, 'options.mask');
  }
  if (options.bias !== undefined) {
    const bias = check.requireTensorOf(options.bias, 'f32', 'options.bias');
    args.bias = broadcast(args, bias, call.bias, 'options.bias');
  }
}

function broadcast<D extends 'u8' | 'f32'>(
  args: AttendArgs,
  tensor: Tensor<D>,
  into: Broadcast<TypedArrayOf<D>>,
  argument: string,
): Broadcast<TypedArrayOf<D>> {
  check.checkRank(tensor, 4, argument, '[batch or 1, heads or 1, query tokens, key tokens]');
  const { batch, heads, queryTokens, keyTokens } = args;
  const [planeBatch, planeHeads, rows, columns] = tensor.shape;
  if (
    (planeBatch !== batch && planeBatch !== 1) ||
    (planeHeads !== heads && planeHeads !== 1) ||
    rows !== queryTokens ||
    columns !== keyTokens
  ) {
    const expected = [`${batch} or 1`, `${heads} or 1`, queryTokens, keyTokens];
    throw check.shapeError(argument, expected, tensor);
  }
  const plane = queryTokens * keyTokens;
  into.data = tensor.storage.data;
  into.batchStride = planeBatch === 1 ? 0 : planeHeads * plane;
  into.headStride = planeHeads === 1 ? 0 : plane;
  return into;
}

/** The caller's out, [B, Tq, Hq, Dv] in f32 or q's dtype, apart from every input; null if there is none. */
export function fillOut(
  call: AttentionCall,
  q: Tensor<FloatDType>,
  k: Tensor<FloatDType> | null,
  v: Tensor<FloatDType> | null,
): Tensor<FloatDType> | null {
  const { args, options } = call;
  if (options.out === undefined) return null;
  const out = check.requireFloatTensor(options.out, 'options.out');
  check.checkShape4(out, args.batch, args.queryTokens, args.heads, args.valueDim, 'options.out');
  if (out.dtype !== 'f32' && out.dtype !== q.dtype) {
    const expected = q.dtype === 'f32' ? 'dtype f32' : `dtype f32 or ${q.dtype}`;
    throw expectedError('INVALID_DTYPE', 'options.out', expected, out.dtype);
  }
  check.checkNoOverlap(out, q, 'options.out', 'q');
  if (k !== null) check.checkNoOverlap(out, k, 'options.out', 'k');
  if (v !== null) check.checkNoOverlap(out, v, 'options.out', 'v');
  const { mask, bias, alibiSlopes, sinkLogits } = options;
  if (mask !== undefined) checkApart(out, mask, 'options.mask');
  if (bias !== undefined) checkApart(out, bias, 'options.bias');
  if (alibiSlopes !== undefined) checkApart(out, alibiSlopes, 'options.alibiSlopes');
  if (sinkLogits !== undefined) checkApart(out, sinkLogits, 'options.sinkLogits');
  return out;
}

/** `input` has been found to be a tensor. */
function checkApart(out: Tensor, input: unknown, argument: string): void {
  check.checkNoOverlap(out, input as Tensor, 'options.out', argument);
}
