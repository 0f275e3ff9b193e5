/**
 * One conversation in a cache: k [tokens, kvHeads, headDim] and v [tokens, kvHeads, valueDim] per layer and step, in f32,
 * f16 or bf16, stored in the cache's dtypes. Positions are absolute, from 0.
 */
import type { FloatDType } from '../core/dtype';
import { expectedError } from '../core/errors';
import { DISPOSED, IDLE } from '../core/storage';
import { disposeSymbol } from '../core/tensor';
import type { Tensor } from '../core/tensor';
import { requireInteger, stateError } from '../core/validate';
import { AppendRows } from './append';
import { reserve } from './demand';
import { longestChunk } from './geometry';
import type { KvCache } from './kv-cache';
import { KvLayer } from './layer';
import type { BlockRing } from './ring';
import type { SaveResult } from './snapshot/saving';
import {
  inheritDigests,
  saveSequenceTo,
  snapshotBytes,
  snapshotSequenceTo,
} from './snapshot/sequences';
import type { BlockStore } from './snapshot/store';
import { TokenCount } from './token-count';

export class KvSequence {
  /** @internal DISPOSED, IDLE, or the number of calls that save it; async attention makes the cache busy. */
  state = IDLE;
  /** @internal */
  readonly count: TokenCount;
  /** @internal One per layer group. */
  readonly rings: readonly BlockRing[];
  /** @internal */
  readonly layers: readonly KvLayer[];
  /** @internal How often it was cut. */
  cuts = 0;
  /** @internal Told from which position on tokens are gone, or others. */
  readonly cutListeners = new Set<(length: number) => void>();
  /** Of the append in progress; reused, so that a decode step allocates nothing. */
  private readonly rows = new AppendRows();

  /** @internal Use `cache.sequence()`. */
  constructor(readonly cache: KvCache) {
    this.count = new TokenCount(cache.layers);
    this.rings = cache.groups.map((group) => group.newRing());
    this.layers = cache.storage.map((storage, i) => {
      const ring = this.rings[cache.groups.indexOf(storage.group)];
      return new KvLayer(this, i, storage, ring);
    });
  }

  /** Tokens that every layer has appended, and so the next position. */
  get length(): number {
    return this.count.length;
  }

  /** Oldest position that every layer still holds beside its sinks; 0 until something was evicted. */
  get start(): number {
    let start = 0;
    for (const ring of this.rings) start = Math.max(start, ring.start);
    return start;
  }

  /**
   * Tokens of the longest chunk that can be appended and then attended over, every row finding the keys that it sees; 0
   * where a layer without a window is full.
   */
  get longestChunk(): number {
    let longest = Infinity;
    for (const { geometry } of this.rings) {
      longest = Math.min(longest, longestChunk(geometry, this.length));
    }
    return longest;
  }

  /** Tokens that can still be appended: Infinity where every layer has a window. */
  get room(): number {
    let room = Infinity;
    for (const { geometry } of this.rings) {
      if (geometry.window === Infinity) room = Math.min(room, geometry.capacity - this.length);
    }
    return room;
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
   * @param k [tokens, kvHeads, headDim], or [1, tokens, kvHeads, headDim]; not turned by RoPE where positions are the
   *   cache's
   * @param v [tokens, kvHeads, valueDim], or [1, tokens, kvHeads, valueDim], of k's dtype
   * @throws GqaError LAYERS_UNEVEN, CAPACITY_EXCEEDED (no window and no room, or no block is free), INVALID_RANK, INVALID_SHAPE,
   *   INVALID_DTYPE, INVALID_ARGUMENT, NON_FINITE (a quantised cache), OUT_OF_RANGE, BUFFER_DETACHED, BUFFER_TOO_SMALL, DISPOSED, BUSY.
   *   Nothing is written then.
   */
  append(layer: number, k: Tensor<FloatDType>, v: Tensor<FloatDType>): void {
    this.checkUsable('sequence');
    const view = this.layers[this.checkLayer(layer)];
    const { rows } = this;
    try {
      rows.read(view.storage, k, v);
      const { tokens } = rows;
      this.checkAppend(layer, tokens, 'k');
      rows.checkStorable(view, 0, tokens);
      this.reserve(tokens, 'k');
      rows.write(view, 0, tokens);
      this.commitAppend(layer, tokens);
    } finally {
      rows.clear();
    }
  }

  /** @internal @throws GqaError LAYERS_UNEVEN, CAPACITY_EXCEEDED */
  checkAppend(layer: number, tokens: number, argument: string): void {
    this.count.check(layer, tokens);
    if (tokens > this.room) {
      const expected = `at most ${this.room} tokens, what is left of the capacity,`;
      throw expectedError('CAPACITY_EXCEEDED', argument, expected, String(tokens));
    }
  }

  /** All layers' blocks of an append that the first of them is about to write. @throws GqaError CAPACITY_EXCEEDED */
  private reserve(tokens: number, argument: string): void {
    if (this.count.underWay) return;
    reserve(this.cache, [{ sequence: this, position: this.length, tokens }], argument);
  }

  /** @internal A layer has written the tokens of this step. */
  commitAppend(layer: number, tokens: number): void {
    if (this.count.commit(layer, tokens)) this.reached(this.length);
  }

  private reached(length: number): void {
    for (const ring of this.rings) ring.peak = Math.max(ring.peak, length);
  }

  /**
   * Drops the tokens from position `length` on, and a step that not every layer has finished. Once something was evicted,
   * `length` must be at least the largest length ever reached minus the cache's slack. In a quantised cache a block that
   * is cut open more than 64 tokens back is rounded once more when it is whole again.
   *
   * @throws GqaError SLACK_EXCEEDED, OUT_OF_RANGE (beyond the length), INVALID_ARGUMENT, DISPOSED, BUSY.
   */
  truncate(length: number): void {
    this.checkUsable('sequence');
    requireInteger(length, 'length', 0, this.length);
    this.checkCut(length);
    this.cut(length);
  }

  /** @internal @throws GqaError SLACK_EXCEEDED */
  checkCut(length: number): void {
    for (const ring of this.rings) {
      const peak = Math.max(ring.peak, this.count.reached);
      const shortest = ring.shortest(peak);
      if (length >= shortest) continue;
      const oldest = ring.startAt(peak);
      const expected = `a length of at least ${shortest} (the oldest position still held is ${oldest})`;
      throw expectedError('SLACK_EXCEEDED', 'length', expected, String(length));
    }
  }

  /** Tokens from `changedFrom` on are gone, or others. */
  private cut(length: number, changedFrom = length): void {
    this.reached(this.count.reached);
    for (const layer of this.layers) layer.cutTail(length);
    for (const ring of this.rings) ring.cut(length);
    this.count.reset(length);
    this.cuts++;
    for (const listener of this.cutListeners) listener(changedFrom);
  }

  /**
   * @internal Of the rows appended from position `start` on, those given in ascending order are all that stays.
   *
   * @throws GqaError CAPACITY_EXCEEDED (a fork came to share the blocks, and none is free for copies)
   */
  keepRows(start: number, rows: Int32Array): void {
    reserve(this.cache, [{ sequence: this, position: start, tokens: rows.length }], 'path');
    const from = rows.map((row) => start + row);
    for (const layer of this.layers) layer.moveTokens(from, start, rows.length);
    this.cut(start + rows.length, start);
  }

  /** @internal A new sequence has the first tokens of others, in whole blocks that it holds already. */
  begin(length: number): void {
    this.reached(length);
    this.count.reset(length);
    for (const layer of this.layers) layer.beginAt(length);
  }

  /**
   * Another sequence with the same tokens. Blocks are shared; one is copied when either sequence writes it first.
   *
   * @throws GqaError CAPACITY_EXCEEDED (all sequences are in use), LAYERS_UNEVEN (in the middle of a step), DISPOSED,
   *   BUSY.
   */
  fork(): KvSequence {
    this.checkUsable('sequence');
    this.checkWhole();
    const fork = this.cache.sequence();
    fork.rings.forEach((ring, i) => ring.adoptAll(this.rings[i]));
    fork.layers.forEach((layer, i) => layer.adopt(this.layers[i]));
    fork.count.reset(this.length);
    inheritDigests(fork, this);
    return fork;
  }

  /**
   * Offers this sequence's whole blocks to `cache.lookup()`, beyond its own life.
   *
   * @param tokens ids of positions 0 .. tokens.length - 1
   * @returns how many of these tokens lookup() can find now: whole blocks, within the cache's budget
   * @throws GqaError INVALID_ARGUMENT, OUT_OF_RANGE (more ids than tokens), POSITION_EVICTED (the window has passed
   *   position 0), LAYERS_UNEVEN (in the middle of a step), DISPOSED, BUSY.
   */
  share(tokens: ArrayLike<number>): number {
    this.checkUsable('sequence');
    this.checkWhole();
    return this.cache.prefixes.share(this, tokens);
  }

  /**
   * All of this sequence in bytes that `cache.restore()` makes a sequence of, in any process and on any backend
   * (docs/snapshots.md).
   *
   * @throws GqaError LAYERS_UNEVEN (in the middle of a step), OUT_OF_MEMORY, DISPOSED, BUSY.
   */
  snapshot(): Uint8Array {
    return snapshotBytes(this);
  }

  /**
   * The same bytes to a file, which is there when they all are, or to a stream, which is ended. Until then the sequence
   * is busy; others are not.
   *
   * @returns bytes written
   * @throws GqaError STORE_FAILED, INVALID_ARGUMENT, LAYERS_UNEVEN, OUT_OF_MEMORY, DISPOSED, BUSY.
   */
  async snapshotTo(target: string | NodeJS.WritableStream): Promise<number> {
    return snapshotSequenceTo(this, target);
  }

  /**
   * Saves this sequence in a store under a name, in the place of what had it before. Only blocks that the store does not
   * have yet are written. Until then the sequence is busy; others are not.
   *
   * @throws GqaError STORE_FAILED, INVALID_ARGUMENT, LAYERS_UNEVEN, OUT_OF_MEMORY, DISPOSED, BUSY.
   */
  async saveTo(store: BlockStore, name: string): Promise<SaveResult> {
    return saveSequenceTo(this, store, name);
  }

  /** Gives the blocks back to the cache; a second call does nothing. @throws GqaError BUSY. */
  dispose(): void {
    if (this.state === DISPOSED) return;
    this.checkUsable('sequence');
    this.letGo();
  }

  /** @internal */
  letGo(): void {
    for (const ring of this.rings) ring.clear();
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

  /** @internal No step is under way. @throws GqaError LAYERS_UNEVEN */
  checkWhole(): void {
    if (!this.count.underWay) return;
    const expected = 'a sequence whose layers have all finished the step';
    throw expectedError('LAYERS_UNEVEN', 'sequence', expected, 'one in the middle of a step');
  }

  private checkLayer(index: number): number {
    return requireInteger(index, 'layer', 0, this.layers.length - 1);
  }
}
