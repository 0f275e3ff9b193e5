/** One call of an attention module: its inputs and options, checked, before anything is computed or appended. */
import { narrowedSinks, narrowedWindow } from '../attention/sources';
import { requireStats } from '../core/attention-stats';
import type { AttentionStats } from '../core/attention-stats';
import { expectedError } from '../core/errors';
import type { Tensor } from '../core/tensor';
import {
  checkRank,
  describe,
  isTensor,
  requireBoolean,
  requireInteger,
  requireOptions,
  requireTensorOf,
  requireWindow,
  shapeError,
} from '../core/validate';
import { KvSequence } from '../kv-cache/kv-cache';
import type { AttentionSizes } from './attention-options';
import { inputRows } from './inputs';

/** Queries, keys and values from different places: q [B, Tq, dModel], k and v [B, Tk, dModel]. */
export interface AttentionInputs {
  q: Tensor;
  k: Tensor;
  v: Tensor;
}

export interface AttentionForwardOptions {
  /** [B|1, heads|1, Tq, Tk], 0 hides; over a cache Tk counts all it holds after this call's append. */
  mask?: Tensor<'u8'>;
  /** Query i sees keys up to i + Tk - Tq. Default false; true over a cache. */
  causal?: boolean;
  /** Keys that a query sees, itself included. Default none, or the cache's, which this may only narrow. */
  window?: number;
  /** First keys that stay visible whatever the window. Default 0, or the cache's, which this may only narrow. */
  sinkTokens?: number;
  /** What was said before: one sequence per batch row, or a single one where B is 1. */
  cache?: KvSequence | readonly KvSequence[];
  /** The layer of the cache that is this module's; default 0. */
  layer?: number;
  /** Takes what the softmax weights of each row look like, [B, Tq, heads]. */
  stats?: AttentionStats;
}

export interface AttentionCall {
  batch: number;
  queryTokens: number;
  keyTokens: number;
  /** Rows [batch * tokens, dModel]. */
  q: Float32Array;
  k: Float32Array;
  v: Float32Array;
  /** What attention() takes as it is; absent stays absent. */
  features: Pick<AttentionForwardOptions, 'causal' | 'window' | 'sinkTokens'>;
  mask: Tensor<'u8'> | undefined;
  /** One per batch row; null without a cache. */
  sequences: readonly KvSequence[] | null;
  layer: number;
  stats: AttentionStats | null;
}

/** @throws GqaError for whatever does not fit */
export function readCall(
  sizes: AttentionSizes,
  input: Tensor | AttentionInputs,
  options: AttentionForwardOptions,
): AttentionCall {
  requireOptions(options, 'options');
  const { mask, stats } = options;
  const call = {
    ...readInputs(sizes.dModel, input),
    features: readFeatures(options),
    mask: mask === undefined ? undefined : requireTensorOf(mask, 'u8', 'options.mask'),
    sequences: null as readonly KvSequence[] | null,
    layer: requireInteger(options.layer ?? 0, 'options.layer', 0),
    stats: stats === undefined ? null : requireStats(stats, 'options.stats'),
  };
  if (options.cache === undefined) {
    checkMask(call, sizes.heads, call.keyTokens);
    return call;
  }
  call.sequences = readSequences(options.cache, call.batch);
  for (const sequence of call.sequences) checkSequence(call, sizes, sequence);
  return call;
}

function readInputs(
  dModel: number,
  input: Tensor | AttentionInputs,
): Pick<AttentionCall, 'batch' | 'queryTokens' | 'keyTokens' | 'q' | 'k' | 'v'> {
  if (isTensor(input)) {
    const [batch, tokens] = tokenShape('x', input);
    const x = inputRows('x', input, dModel);
    return { batch, queryTokens: tokens, keyTokens: tokens, q: x, k: x, v: x };
  }
  requireOptions(input, 'x');
  const [batch, queryTokens] = tokenShape('q', input.q);
  const [keyBatch, keyTokens] = tokenShape('k', input.k);
  const [valueBatch, valueTokens] = tokenShape('v', input.v);
  if (keyBatch !== batch) throw shapeError('k', [batch, 'Tk', dModel], input.k);
  if (valueBatch !== batch || valueTokens !== keyTokens) {
    throw shapeError('v', [batch, keyTokens, dModel], input.v);
  }
  return {
    batch,
    queryTokens,
    keyTokens,
    q: inputRows('q', input.q, dModel),
    k: inputRows('k', input.k, dModel),
    v: inputRows('v', input.v, dModel),
  };
}

function tokenShape(argument: string, x: Tensor): readonly number[] {
  if (!isTensor(x)) {
    const expected = argument === 'x' ? 'a Tensor or { q, k, v }' : 'a Tensor';
    throw expectedError('INVALID_ARGUMENT', argument, expected, describe(x));
  }
  checkRank(x, 3, argument, '[batch, tokens, dModel]');
  return x.shape;
}

function readFeatures(options: AttentionForwardOptions): AttentionCall['features'] {
  const { causal, window, sinkTokens } = options;
  if (causal !== undefined) requireBoolean(causal, 'options.causal');
  if (window !== undefined) requireWindow(window, 'options.window');
  if (sinkTokens !== undefined) requireInteger(sinkTokens, 'options.sinkTokens', 0);
  return { causal, window, sinkTokens };
}

function readSequences(
  cache: KvSequence | readonly KvSequence[],
  batch: number,
): readonly KvSequence[] {
  const sequences = Array.isArray(cache) ? (cache as readonly KvSequence[]) : [cache as KvSequence];
  const expected = 'a KvSequence (from cache.sequence()), or an array of them,';
  for (const sequence of sequences) {
    if (!(sequence instanceof KvSequence)) {
      throw expectedError('INVALID_ARGUMENT', 'options.cache', expected, describe(sequence));
    }
  }
  if (sequences.length !== batch) {
    throw expectedError(
      'INVALID_SHAPE',
      'options.cache',
      `one sequence for each of ${batch} batch rows`,
      String(sequences.length),
    );
  }
  if (new Set(sequences).size !== batch) {
    throw expectedError('INVALID_ARGUMENT', 'options.cache', 'distinct sequences', 'one twice');
  }
  return sequences;
}

/** Everything that append and attention would refuse of this sequence. */
function checkSequence(call: AttentionCall, sizes: AttentionSizes, sequence: KvSequence): void {
  sequence.checkUsable('options.cache');
  requireInteger(call.layer, 'options.layer', 0, sequence.cache.layers - 1);
  const layer = sequence.layer(call.layer);
  for (const [name, has, needs] of [
    ['kvHeads', layer.kvHeads, sizes.kvHeads],
    ['headDim', layer.headDim, sizes.headDim],
    ['valueDim', layer.valueDim, sizes.headDim],
  ] as const) {
    if (has !== needs) {
      const expected = `a cache with ${name} ${needs}`;
      throw expectedError('INVALID_SHAPE', 'options.cache', expected, String(has));
    }
  }
  const { window, sinkTokens } = call.features;
  if (window !== undefined) narrowedWindow(window, layer.window);
  if (sinkTokens !== undefined && layer.window !== Infinity) {
    narrowedSinks(sinkTokens, layer.sinkTokens);
  }
  sequence.checkAppend(call.layer, call.keyTokens, 'k');
  checkMask(call, sizes.heads, sequence.length + call.keyTokens);
  if (attendPlan(call, sequence) === 'impossible') {
    const expected = `at most ${sequence.longestChunk} tokens at once, as the cache's window and capacity allow,`;
    throw expectedError('POSITION_EVICTED', 'x', expected, `${call.keyTokens} tokens`);
  }
}

function checkMask(call: AttentionCall, heads: number, keys: number): void {
  const { mask, batch, queryTokens } = call;
  if (mask === undefined) return;
  checkRank(mask, 4, 'options.mask', '[B|1, heads|1, Tq, Tk]');
  const [b, h, tq, tk] = mask.shape;
  if ((b !== 1 && b !== batch) || (h !== 1 && h !== heads) || tq !== queryTokens || tk !== keys) {
    throw shapeError('options.mask', [`1 or ${batch}`, `1 or ${heads}`, queryTokens, keys], mask);
  }
}

/**
 * How a call goes through a sequence.
 * whole: append all, then attend. Where the window would have passed some keys by then:
 * cut: in pieces, each attended over before the next is appended; not with several layers, which advance together;
 * outside: the sequence is empty, so that attention over the call's own keys is the same, unless positions are the cache's.
 */
export type AttendPlan = 'whole' | 'cut' | 'outside' | 'impossible';

export function attendPlan(call: AttentionCall, sequence: KvSequence): AttendPlan {
  const { queryTokens, keyTokens, features } = call;
  const { layers, positions } = sequence.cache;
  const { sinkTokens, window, ring } = sequence.layer(call.layer);
  const length = sequence.length + keyTokens;
  const start = ring.startAt(length);
  const oldest = length - queryTokens - (features.window ?? window) + 1;
  if (queryTokens === 0 || start <= Math.max(0, sinkTokens, oldest)) return 'whole';
  if (queryTokens === keyTokens && features.causal !== false && layers === 1) return 'cut';
  return sequence.length === 0 && positions === 'absolute' ? 'outside' : 'impossible';
}
