/**
 * Scaled dot-product attention with grouped heads: query head h reads KV head floor(h / G), G = Hq / Hkv.
 *
 * q [B, Tq, Hq, D], k [B, Tk, Hkv, D], v [B, Tk, Hkv, Dv] -> out [B, Tq, Hq, Dv], in f32, f16 or bf16, accumulated in f32.
 * Over a cache, k and v are what a sequence's layer holds, B = 1, and q's last row is the newest position.
 */
import { AttentionCall, holdablesOf } from './attention/call';
import type { AttentionLseOptions, AttentionOptions, AttentionWithLse } from './attention/options';
import { getBackend } from './backend';
import type { FloatDType } from './core/dtype';
import { GqaError, expectedError } from './core/errors';
import type { Tensor } from './core/tensor';
import { describe } from './core/validate';
import type { KvLayer } from './kv-cache/layer';

export { attentionBackward } from './attention/backward';
export type { AttentionBackwardOptions, AttentionGradients } from './attention/backward';
export { mergeAttention } from './attention/merge';
export type {
  AttentionFeatures,
  AttentionLseOptions,
  AttentionOptions,
  AttentionWithLse,
} from './attention/options';

type Result = Tensor<FloatDType> | AttentionWithLse;
interface Signal {
  /** Stops the call, which then rejects with the signal's reason. */
  signal?: AbortSignal;
}

/** Reused by every synchronous call. No code of the caller runs between filling and clearing it. */
const shared = new AttentionCall();

/**
 * Attention, computed before it returns.
 *
 * The order of operations on a score: scale, softcap, bias and ALiBi, masks, sink logits, softmax, dropout. A row that
 * sees no key gives zeros, and -Infinity as its LSE. k and v share q's dtype; over a cache q may be of any float dtype.
 *
 * @returns a tensor of `out`'s dtype or else q's; { out, lse } with `returnLse: true`
 * @throws GqaError INVALID_ARGUMENT, INVALID_RANK, INVALID_SHAPE, INVALID_DTYPE, HEADS_NOT_DIVISIBLE, NON_FINITE,
 *   OUT_OF_RANGE, OVERLAP, POSITION_EVICTED, BUFFER_DETACHED, BUFFER_TOO_SMALL, DISPOSED, BUSY, OUT_OF_MEMORY.
 *   Nothing is written then.
 */
export function attention<D extends FloatDType, R extends FloatDType = D>(
  q: Tensor<D>,
  k: Tensor<NoInfer<D>>,
  v: Tensor<NoInfer<D>>,
  options: AttentionLseOptions<R>,
): AttentionWithLse<R>;
export function attention<D extends FloatDType, R extends FloatDType = D>(
  q: Tensor<D>,
  k: Tensor<NoInfer<D>>,
  v: Tensor<NoInfer<D>>,
  options?: AttentionOptions<R>,
): Tensor<R>;
export function attention<D extends FloatDType, R extends FloatDType = D>(
  q: Tensor<D>,
  layer: KvLayer,
  options: AttentionLseOptions<R>,
): AttentionWithLse<R>;
export function attention<D extends FloatDType, R extends FloatDType = D>(
  q: Tensor<D>,
  layer: KvLayer,
  options?: AttentionOptions<R>,
): Tensor<R>;
export function attention(q: unknown, key: unknown, third?: unknown, fourth?: unknown): Result {
  const call = shared;
  try {
    call.fill(q, key, third, fourth);
    if (!call.finishEmpty()) getBackend().attend(call.args);
    return call.result();
  } finally {
    call.clear();
  }
}

/**
 * Attention off the event loop. Every tensor given, and the cache, is busy until the promise has settled: other calls on
 * them throw BUSY. Their memory must stay where it is meanwhile: a resizable ArrayBuffer is refused, and an ArrayBuffer
 * that was part of an async call cannot be transferred to another thread any more (Node copies it, or throws). Do not
 * call its `transfer()` yourself.
 *
 * @returns as `attention`; rejects with the same errors, or with the signal's reason once the work has stopped (the
 *   contents of `out` are then undefined)
 */
export function attentionAsync<D extends FloatDType, R extends FloatDType = D>(
  q: Tensor<D>,
  k: Tensor<NoInfer<D>>,
  v: Tensor<NoInfer<D>>,
  options: AttentionLseOptions<R> & Signal,
): Promise<AttentionWithLse<R>>;
export function attentionAsync<D extends FloatDType, R extends FloatDType = D>(
  q: Tensor<D>,
  k: Tensor<NoInfer<D>>,
  v: Tensor<NoInfer<D>>,
  options?: AttentionOptions<R> & Signal,
): Promise<Tensor<R>>;
export function attentionAsync<D extends FloatDType, R extends FloatDType = D>(
  q: Tensor<D>,
  layer: KvLayer,
  options: AttentionLseOptions<R> & Signal,
): Promise<AttentionWithLse<R>>;
export function attentionAsync<D extends FloatDType, R extends FloatDType = D>(
  q: Tensor<D>,
  layer: KvLayer,
  options?: AttentionOptions<R> & Signal,
): Promise<Tensor<R>>;
export async function attentionAsync(
  q: unknown,
  key: unknown,
  third?: unknown,
  fourth?: unknown,
): Promise<Result> {
  const call = new AttentionCall();
  const signal = readSignal(fourth ?? third);
  call.fill(q, key, third, fourth);
  const held = holdablesOf(call, q, key, third);
  signal?.throwIfAborted();
  if (call.finishEmpty()) return call.result();

  const cancel = new Int32Array(1);
  const stop = () => Atomics.store(cancel, 0, 1);
  for (const handle of held) handle.hold();
  signal?.addEventListener('abort', stop, { once: true });
  try {
    const finished = await getBackend().attendAsync(call.args, cancel);
    signal?.throwIfAborted();
    if (!finished) throw new GqaError('INTERNAL', 'An async call stopped without being cancelled');
    return call.result();
  } finally {
    signal?.removeEventListener('abort', stop);
    for (const handle of held) handle.release();
  }
}

/** The signal of the options, if the value is an options object that has one. */
function readSignal(options: unknown): AbortSignal | undefined {
  if (typeof options !== 'object' || options === null) return undefined;
  const { signal } = options as Signal;
  if (signal === undefined) return undefined;
  // Not instanceof: a signal may come from another realm or from a polyfill.
  if (typeof signal?.addEventListener !== 'function' || typeof signal.aborted !== 'boolean') {
    throw expectedError('INVALID_ARGUMENT', 'options.signal', 'an AbortSignal', describe(signal));
  }
  return signal;
}
