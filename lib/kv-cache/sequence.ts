/**
 * One conversation in a cache: k [tokens, kvHeads, headDim] and v [tokens, kvHeads, valueDim] per layer and step, in f32,
 * f16 or bf16, stored in the cache's dtype. Positions are absolute, from 0.
 */
import { blocksOf, QUANTISED_LIMIT } from '../core/dtype';
import type { FloatDType } from '../core/dtype';
import { expectedError } from '../core/errors';
import { DISPOSED, IDLE } from '../core/storage';
import { disposeSymbol } from '../core/tensor';
import type { Tensor } from '../core/tensor';
import { describe, requireFloatTensor, requireInteger } from '../core/validate';
import { shapeError, stateError } from '../core/validate';
import type { KvCache } from './kv-cache';
import { KvLayer } from './layer';
import { TokenRing, UNASSIGNED } from './ring';

/** Rows [from, from + count) of an append. */
interface Run {
  from: number;
  count: number;
}

export class KvSequence {
  /** @internal DISPOSED or IDLE; what is busy is the cache. */
  state = IDLE;
  /** @internal */
  readonly ring: TokenRing;
  private readonly layers: KvLayer[] = [];
  /** Of the append in progress: new sinks, then newest tokens. Reused, so that a decode step allocates nothing. */
  private readonly runs: readonly [Run, Run] = [
    { from: 0, count: 0 },
    { from: 0, count: 0 },
  ];

  /** @internal Use `cache.sequence()`. */
  constructor(readonly cache: KvCache) {
    this.ring = new TokenRing(cache.geometry);
    for (let i = 0; i < cache.layers; i++) {
      this.layers.push(new KvLayer(this, i, cache.arenas[i]));
    }
  }

  /** Tokens that every layer has appended, and so the next position. */
  get length(): number {
    return this.ring.length;
  }

  /** Oldest position of the recent run still held; 0 until something was evicted. */
  get start(): number {
    return this.ring.start;
  }

  /**
   * What `attention(q, seq.layer(i))` attends over; the same object every time.
   *
   * @throws GqaError INVALID_ARGUMENT, OUT_OF_RANGE, DISPOSED, BUSY.
   */
  layer(index: number): KvLayer {
    this.checkUsable('sequence');
    return this.layers[this.checkLayer(index)];
  }

  /**
   * Appends the tokens of a step to one layer. In a step each layer appends the same number of tokens once, in any order;
   * `length` grows with the last. Any number of tokens is legal in a windowed cache: the sinks and the newest stay.
   *
   * @param k [tokens, kvHeads, headDim], or [1, tokens, kvHeads, headDim]
   * @param v [tokens, kvHeads, valueDim], or [1, tokens, kvHeads, valueDim], of k's dtype
   * @throws GqaError LAYERS_UNEVEN, CAPACITY_EXCEEDED (no window and no room), INVALID_RANK, INVALID_SHAPE,
   *   INVALID_DTYPE, INVALID_ARGUMENT, NON_FINITE (a quantised cache), OUT_OF_RANGE, BUFFER_DETACHED, BUFFER_TOO_SMALL, DISPOSED, BUSY.
   *   Nothing is written then.
   */
  append(layer: number, k: Tensor<FloatDType>, v: Tensor<FloatDType>): void {
    this.checkUsable('sequence');
    const view = this.layers[this.checkLayer(layer)];
    const { kvHeads, headDim, valueDim } = this.cache;
    const keys = requireFloatTensor(k, 'k');
    const values = requireFloatTensor(v, 'v');
    const tokens = rowsOf(keys, kvHeads, headDim, 'k', 'headDim');
    if (rowsOf(values, kvHeads, valueDim, 'v', 'valueDim') !== tokens) {
      throw shapeError('v', [tokens, kvHeads, valueDim], values);
    }
    if (keys.dtype !== values.dtype) {
      throw expectedError('INVALID_DTYPE', 'v', `k's dtype ${keys.dtype}`, values.dtype);
    }
    this.ring.checkAppend(layer, tokens);
    const runs = this.heldRuns(view.length, tokens);
    this.checkStorable(keys, tokens, runs, 'k');
    this.checkStorable(values, tokens, runs, 'v');
    for (const { from, count } of runs) {
      if (count > 0) this.writeRun(view, keys, values, from, count, view.length + from);
    }
    this.ring.commitAppend(layer, tokens);
  }

  /** Rows of an append that will be held: the new sinks, and of the others those that the window has not already passed. */
  private heldRuns(position: number, tokens: number): readonly Run[] {
    const [sinks, newest] = this.runs;
    const end = position + tokens;
    const start = this.ring.startAt(end);
    const sinkEnd = start > position ? Math.min(end, this.cache.sinkTokens) : position;
    sinks.count = Math.max(0, sinkEnd - position);
    newest.from = Math.max(0, start - position);
    newest.count = tokens - newest.from;
    return this.runs;
  }

  /** A quantised cache takes numbers only: one NaN or Infinity would make its whole group meaningless. */
  private checkStorable(
    tensor: Tensor<FloatDType>,
    tokens: number,
    runs: readonly Run[],
    argument: string,
  ): void {
    const { dtype, backend } = this.cache;
    if (blocksOf(dtype) === null) return;
    const { data } = tensor.storage;
    for (const { from, count } of runs) {
      if (count <= 0) continue;
      const width = tensor.shape.at(-1)! * tensor.shape.at(-2)!;
      const rows = from === 0 ? data : data.subarray(from * width, tokens * width);
      // The limit itself is allowed, and what f32 has up to one more is rounded to it.
      if (backend.allBelow(rows, tensor.dtype, count * width, QUANTISED_LIMIT + 1)) continue;
      const expected = `finite values of magnitude ${QUANTISED_LIMIT} at most for a ${dtype} cache`;
      throw expectedError('NON_FINITE', argument, expected, 'others');
    }
  }

  private writeRun(
    layer: KvLayer,
    k: Tensor<FloatDType>,
    v: Tensor<FloatDType>,
    from: number,
    count: number,
    position: number,
  ): void {
    this.assignBlocks(position, position + count);
    layer.store(k.storage.data, v.storage.data, k.dtype, from, count, position);
  }

  /** Every slot that [from, to) falls in has a block from here on. */
  private assignBlocks(from: number, to: number): void {
    const { ids } = this.ring.table;
    const { blockTokens } = this.ring.geometry;
    for (let at = from - (from % blockTokens); at < to; at += blockTokens) {
      const slot = this.ring.slotOf(at);
      if (ids[slot] === UNASSIGNED) ids[slot] = this.cache.pool.take();
    }
  }

  /**
   * Drops the tokens from position `length` on, and a step that not every layer has finished. Once something was evicted,
   * `length` must be at least the largest length ever reached minus the cache's slack.
   *
   * @throws GqaError SLACK_EXCEEDED, OUT_OF_RANGE (beyond the length), INVALID_ARGUMENT, DISPOSED, BUSY.
   */
  truncate(length: number): void {
    this.checkUsable('sequence');
    this.ring.truncate(length);
  }

  /** Gives the blocks back to the cache; a second call does nothing. @throws GqaError BUSY. */
  dispose(): void {
    if (this.state === DISPOSED) return;
    this.checkUsable('sequence');
    const { ids } = this.ring.table;
    for (let slot = 0; slot < ids.length; slot++) {
      if (ids[slot] !== UNASSIGNED) this.cache.pool.giveBack(ids[slot]);
      ids[slot] = UNASSIGNED;
    }
    this.state = DISPOSED;
    this.cache.forget(this);
  }

  [disposeSymbol](): void {
    this.dispose();
  }

  /** @internal */
  checkUsable(argument: string): void {
    if (this.state !== IDLE) throw stateError(this.state, argument, 'sequence');
    const state = this.cache.state;
    if (state !== IDLE) throw stateError(state, argument, 'cache');
  }

  private checkLayer(index: number): number {
    return requireInteger(index, 'layer', 0, this.layers.length - 1);
  }
}

/** Tokens of [tokens, heads, dim] or [1, tokens, heads, dim]. */
function rowsOf(
  tensor: Tensor<FloatDType>,
  heads: number,
  dim: number,
  argument: string,
  dimName: string,
): number {
  const shape = tensor.shape;
  const rank = shape.length;
  if (rank !== 3 && rank !== 4) {
    const expected = `a tensor [tokens, kvHeads, ${dimName}]`;
    throw expectedError('INVALID_RANK', argument, expected, describe(tensor));
  }
  if (shape[rank - 2] !== heads || shape[rank - 1] !== dim || (rank === 4 && shape[0] !== 1)) {
    throw shapeError(argument, ['tokens', heads, dim], tensor);
  }
  return shape[rank - 3];
}
