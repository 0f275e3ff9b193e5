/** One case of attention as every contender is given it, and how its files are read and written. */
import { readFileSync, writeFileSync } from 'node:fs';
import type { FloatDType, CacheDType } from '../../lib/core/dtype';

export type PeerOp = 'decode' | 'prefill';

/**
 * decode    one query token over keys and values of `context` tokens, its own included
 * prefill   causal, as many query tokens as keys
 *
 * The files hold q [queryTokens, heads, headDim] and k, v [context, kvHeads, headDim] row-major, in the bits of `inputs`.
 * The result [queryTokens, heads, headDim] goes to `output` as f32.
 */
export interface AttentionTask {
  op: PeerOp;
  heads: number;
  kvHeads: number;
  headDim: number;
  context: number;
  /** What K and V are held in; each contender quantises in its own way. */
  dtype: CacheDType;
  /** Dtype of the files: that of the cache, f32 where it is quantised. */
  inputs: FloatDType;
  threads: number;
  /** Of K and V, to be gone through in turn so that none is in a cache. */
  copies: number;
  q: string;
  k: string;
  v: string;
  output: string;
}

/** What a worker of attention answers to. */
export interface AttentionHandlers {
  /** Builds the case, runs it once and writes the result. */
  prepare(task: AttentionTask): Promise<void> | void;
  /** Runs it for so many seconds; microseconds of each call. */
  time(seconds: number): Promise<number[]> | number[];
}

export function queryTokens({ op, context }: AttentionTask): number {
  return op === 'decode' ? 1 : context;
}

/** The file's elements: f32, or the bits of a 16-bit float. */
export function readElements(path: string, dtype: FloatDType): Float32Array | Uint16Array {
  const { buffer, byteOffset, length } = readFileSync(path);
  const bytes = buffer.slice(byteOffset, byteOffset + length);
  return dtype === 'f32' ? new Float32Array(bytes) : new Uint16Array(bytes);
}

export function writeElements(path: string, data: Float32Array | Uint16Array): void {
  writeFileSync(path, new Uint8Array(data.buffer, data.byteOffset, data.byteLength));
}

/** [tokens, heads, dim] to [heads, tokens, dim], which most peers want. */
export function headsFirst<T extends Float32Array | Uint16Array>(
  data: T,
  tokens: number,
  heads: number,
): T {
  const dim = data.length / tokens / heads;
  const result = data.slice() as T;
  for (let token = 0; token < tokens; token++) {
    for (let head = 0; head < heads; head++) {
      const from = (token * heads + head) * dim;
      result.set(data.subarray(from, from + dim), (head * tokens + token) * dim);
    }
  }
  return result;
}

/** Calls `call` in turn over the copies for so many seconds. */
export async function timeCalls(
  seconds: number,
  copies: number,
  call: (copy: number) => unknown,
): Promise<number[]> {
  const microseconds: number[] = [];
  const end = performance.now() + seconds * 1e3;
  let next = timeCalls.next % copies;
  do {
    const start = performance.now();
    const pending = call(next);
    if (pending instanceof Promise) await pending;
    microseconds.push((performance.now() - start) * 1e3);
    next = next + 1 === copies ? 0 : next + 1;
  } while (performance.now() < end);
  timeCalls.next = next;
  return microseconds;
}
/** Where the next slice of timing goes on, so that short slices do not return to the same copies. */
timeCalls.next = 0;
