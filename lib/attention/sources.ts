/** Checks of where keys and values come from: plain tensors, or a layer of a sequence in a cache. */
import type { AttendArgs } from '../backend/contract';
import type { FloatDType } from '../core/dtype';
import { expectedError } from '../core/errors';
import type { Tensor } from '../core/tensor';
import { checkRank, checkShape4, shapeError, shapeText } from '../core/validate';
import { MAX_HEAD_DIM, requireBoolean, requireInteger, requireWindow } from '../core/validate';
import type { KvLayer } from '../kv-cache/layer';
import type { AttentionCall } from './call';

/** k [B, Tk, Hkv, D] and v [B, Tk, Hkv, Dv], both of q's dtype. */
export function fillFromTensors(
  call: AttentionCall,
  q: Tensor<FloatDType>,
  k: Tensor<FloatDType>,
  v: Tensor<FloatDType>,
): void {
  const { args, options, tensors } = call;
  checkRank(k, 4, 'k', '[batch, tokens, kvHeads, headDim]');
  checkRank(v, 4, 'v', '[batch, tokens, kvHeads, valueDim]');
  args.keyTokens = k.shape[1];
  args.kvHeads = k.shape[2];
  args.valueDim = v.shape[3];
  checkHeads(args, q, k, v);
  checkShape4(k, args.batch, args.keyTokens, args.kvHeads, args.headDim, 'k');
  checkShape4(v, args.batch, args.keyTokens, args.kvHeads, args.valueDim, 'v');
  if (k.dtype !== q.dtype) {
    throw expectedError('INVALID_DTYPE', 'k', `q's dtype ${q.dtype}`, k.dtype);
  }
  if (v.dtype !== q.dtype) {
    throw expectedError('INVALID_DTYPE', 'v', `k's dtype ${k.dtype}`, v.dtype);
  }
  const { causal, window, sinkTokens } = options;
  args.causal = causal === undefined ? false : requireBoolean(causal, 'options.causal');
  args.window = window === undefined ? Infinity : requireWindow(window, 'options.window');
  args.sinkTokens =
    sinkTokens === undefined ? 0 : requireInteger(sinkTokens, 'options.sinkTokens', 0);
  tensors.k = k.storage.data;
  tensors.v = v.storage.data;
  tensors.dtype = k.dtype;
  args.kv = tensors;
}

/** Heads and dims are in range, and the query heads a multiple of the KV heads. */
function checkHeads(
  args: AttendArgs,
  q: Tensor<FloatDType>,
  k: Tensor<FloatDType>,
  v: Tensor<FloatDType>,
): void {
  if (args.heads === 0 || args.headDim === 0) throw emptyHeadsError(q, 'q');
  if (args.kvHeads === 0) throw emptyHeadsError(k, 'k');
  if (args.valueDim === 0) throw emptyHeadsError(v, 'v');
  if (args.headDim > MAX_HEAD_DIM) throw wideHeadError(args.headDim, 'q');
  if (args.valueDim > MAX_HEAD_DIM) throw wideHeadError(args.valueDim, 'v');
  checkGroups(args);
}

function checkGroups(args: AttendArgs): void {
  if (args.heads % args.kvHeads !== 0) {
    const expected = `query heads that are a multiple of the ${args.kvHeads} KV heads`;
    throw expectedError('HEADS_NOT_DIVISIBLE', 'q', expected, `${args.heads} heads`);
  }
}

function emptyHeadsError(tensor: Tensor, argument: string) {
  const expected = 'at least one head and one dimension';
  return expectedError('INVALID_SHAPE', argument, expected, shapeText(tensor.shape));
}

function wideHeadError(dim: number, argument: string) {
  return expectedError(
    'OUT_OF_RANGE',
    argument,
    `a head dim of at most ${MAX_HEAD_DIM}`,
    String(dim),
  );
}

/** q [1, Tq, Hq, D] over the layer's tokens; its last row is the newest position. */
export function fillFromLayer(call: AttentionCall, q: Tensor<FloatDType>, layer: KvLayer): void {
  const { args, options } = call;
  const { sequence } = layer;
  sequence.checkUsable('layer');
  args.kvHeads = layer.kvHeads;
  args.valueDim = layer.valueDim;
  args.keyTokens = layer.length;
  if (args.batch !== 1 || args.headDim !== layer.headDim) {
    throw shapeError('q', [1, 'tokens', 'heads', layer.headDim], q);
  }
  if (args.heads === 0) throw emptyHeadsError(q, 'q');
  checkGroups(args);
  const { causal, window, sinkTokens } = options;
  args.causal = causal === undefined ? true : requireBoolean(causal, 'options.causal');
  args.window = window === undefined ? layer.window : narrowedWindow(window, layer.window);
  args.sinkTokens =
    sinkTokens === undefined
      ? layer.sinkTokens
      : narrowedSinks(sinkTokens, layer.window === Infinity ? Infinity : layer.sinkTokens);
  args.kv = layer.prepare();
  checkHeld(args, layer.start, layer.sinkTokens);
}

export function narrowedWindow(value: unknown, largest: number): number {
  const window = requireWindow(value, 'options.window');
  if (window > largest) {
    const expected = `at most the cache's window of ${largest}`;
    throw expectedError('INVALID_ARGUMENT', 'options.window', expected, String(window));
  }
  return window;
}

/** A cache without a window holds every position, so any number of sink tokens is a narrowing there. */
export function narrowedSinks(value: unknown, largest: number): number {
  const sinkTokens = requireInteger(value, 'options.sinkTokens', 0);
  if (sinkTokens > largest) {
    const expected = `at most the cache's ${largest} sink tokens`;
    throw expectedError('INVALID_ARGUMENT', 'options.sinkTokens', expected, String(sinkTokens));
  }
  return sinkTokens;
}

/** The earliest row's window must begin no earlier than what is held; sinks always are. */
function checkHeld(args: AttendArgs, start: number, heldSinks: number): void {
  if (start === 0 || args.queryTokens === 0) return;
  const position = args.keyTokens - args.queryTokens;
  const oldest = Math.max(heldSinks, position - args.window + 1);
  if (oldest < start) {
    const expected = `rows that see no position older than ${start}, the oldest still held,`;
    const received = `a row at position ${position} that sees from position ${oldest} on`;
    throw expectedError('POSITION_EVICTED', 'q', expected, received);
  }
}
