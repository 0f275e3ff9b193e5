/** One layer of a sequence, as attention sees it: keys and values of positions 0 .. length - 1, sinks and window held. */
import type { Backend, CacheSource, StoreArgs } from '../backend/contract';
import type { FloatData, FloatDType } from '../core/dtype';
import type { LayerStorage } from './layer-group';
import type { BlockRing, BlockSlots } from './ring';
import type { KvSequence } from './sequence';

const NO_DATA = new Float32Array(0);

export class KvLayer {
  /** @internal What a backend reads; see prepare(). */
  readonly source: CacheSource;
  /** Reused by every append, so that a decode step allocates nothing. */
  private readonly storeArgs: StoreArgs;
  private readonly backend: Backend;
  /** Ordinals from here on that the tail's ring holds in floats, up to the newest. */
  private tailFrom = 0;
  /** Ordinals below this have a slot of their own in the tail, and are held there. */
  private floatSinks: number;

  /** @internal Use `sequence.layer(index)`. */
  constructor(
    readonly sequence: KvSequence,
    readonly index: number,
    /** @internal */
    readonly storage: LayerStorage,
    /** @internal That of the layer's group. */
    readonly ring: BlockRing,
  ) {
    this.backend = sequence.cache.backend;
    const { main, tail } = ring;
    const { arena, tailArena } = storage;
    const into = tail ?? main;
    const empty = { k: NO_DATA, v: NO_DATA, dtype: 'f32' as const, from: 0, count: 0, position: 0 };
    this.storeArgs = { arena: tailArena ?? arena, table: into.table, ...empty };
    const tailSource =
      tail === null
        ? null
        : { arena: tailArena!, table: tail.table, sinkOrdinals: 0, firstOrdinal: 0 };
    this.source = { type: 'cache', arena, table: main.table, tail: tailSource };
    this.floatSinks = tail === null ? 0 : tail.table.sinkBlocks;
  }

  get kvHeads(): number {
    return this.storage.kvHeads;
  }

  get headDim(): number {
    return this.storage.headDim;
  }

  get valueDim(): number {
    return this.storage.valueDim;
  }

  /** Keys that a query sees at most, itself included; Infinity for no limit. */
  get window(): number {
    return this.ring.geometry.window;
  }

  /** First positions that stay visible whatever the window. */
  get sinkTokens(): number {
    return this.ring.geometry.sinkTokens;
  }

  /** Tokens of this layer, its own append of an unfinished step included. */
  get length(): number {
    return this.sequence.count.of(this.index);
  }

  /** Oldest position of the recent run that this layer holds; 0 until something was evicted. */
  get start(): number {
    return this.ring.startAt(this.length);
  }

  /**
   * @internal The first ordinal that is read in floats, where the layer has `length` tokens: the newest token's, whole or
   * not, or that of older ones where `recent` says so.
   */
  firstTailOrdinal(length: number): number {
    const { tail, blockTokens } = this.ring.geometry;
    if (tail === null) return Infinity;
    const recent = Math.floor(Math.max(0, length - Math.max(1, tail.recent)) / blockTokens);
    return Math.max(this.tailFrom, this.tailFromAfter(length), recent);
  }

  /** @internal The oldest ordinal that the tail's ring holds. */
  get oldestTailOrdinal(): number {
    return this.tailFrom;
  }

  /** @internal Ordinals below this are held by slots of their own in the tail. */
  get tailSinkOrdinals(): number {
    return this.floatSinks;
  }

  /** @internal Makes `source` that of the layer as it is now. */
  prepare(): CacheSource {
    const { tail } = this.source;
    if (tail !== null) {
      tail.sinkOrdinals = this.floatSinks;
      tail.firstOrdinal = this.firstTailOrdinal(this.length);
    }
    return this.source;
  }

  /** @internal Writes rows [from, from + count) of k and v at `position` and on. */
  write(
    k: FloatData,
    v: FloatData,
    dtype: FloatDType,
    from: number,
    count: number,
    position: number,
  ): void {
    const args = this.storeArgs;
    args.k = k;
    args.v = v;
    args.dtype = dtype;
    try {
      const { tail } = this.ring;
      if (tail === null) this.writeFloats(from, count, position);
      else this.writeThroughTail(tail, from, count, position);
    } finally {
      args.k = NO_DATA;
      args.v = NO_DATA;
    }
  }

  private writeFloats(from: number, count: number, position: number): void {
    const { blockTokens } = this.ring.geometry;
    const end = position + count;
    for (let at = position - (position % blockTokens); at < end; at += blockTokens) {
      this.ring.main.writable(at / blockTokens);
    }
    this.store(from, count, position);
  }

  /** Block by block: into the tail, and from there, once whole, quantised into the main arena. */
  private writeThroughTail(tail: BlockSlots, from: number, count: number, position: number): void {
    const { blockTokens } = this.ring.geometry;
    // What the window passes at once is not written: nothing before the gap is of use.
    if (position > this.length) {
      this.tailFrom = Math.max(this.tailFrom, Math.floor(position / blockTokens));
    }
    for (let at = position, end = position + count, next; at < end; at = next) {
      const ordinal = Math.floor(at / blockTokens);
      next = Math.min(end, (ordinal + 1) * blockTokens);
      const fromId = tail.writable(ordinal);
      this.store(from + at - position, next - at, at);
      if (next % blockTokens === 0) this.quantise(ordinal, fromId);
    }
    this.tailFrom = Math.max(this.tailFrom, this.tailFromAfter(position + count));
  }

  private store(from: number, count: number, position: number): void {
    const args = this.storeArgs;
    args.from = from;
    args.count = count;
    args.position = position;
    this.backend.store(args);
  }

  /** A whole block of the tail becomes one of the main arena. */
  private quantise(ordinal: number, fromId: number): void {
    const { arena, tailArena } = this.storage;
    const toId = this.ring.main.writable(ordinal);
    this.backend.copyBlock({ from: tailArena!, fromId, to: arena, toId });
  }

  /** The oldest ordinal whose slot in the tail's ring no newer one has taken, once `length` tokens were written. */
  private tailFromAfter(length: number): number {
    const { tail, blockTokens } = this.ring.geometry;
    if (tail === null) return 0;
    return Math.max(0, Math.ceil(length / blockTokens) - tail.ringBlocks);
  }

  /**
   * @internal The sequence is cut to `length` tokens. Where that is within a block that the tail no longer holds, its
   * numbers come back as they were quantised.
   */
  cutTail(length: number): void {
    const { tail } = this.ring;
    if (tail === null) return;
    const { blockTokens } = this.ring.geometry;
    const ordinal = Math.floor(length / blockTokens);
    const lost = ordinal >= this.floatSinks && this.tailFrom > ordinal;
    if (lost && length % blockTokens > 0) {
      const { arena, tailArena } = this.storage;
      const fromId = this.ring.main.idOf(ordinal);
      const toId = tail.writable(ordinal);
      this.backend.copyBlock({ from: arena, fromId, to: tailArena!, toId });
    }
    this.tailFrom = Math.min(this.tailFrom, ordinal);
    if (length === 0) this.floatSinks = tail.table.sinkBlocks;
  }

  /** @internal The tokens of a tree that were kept move together; then whole blocks are quantised anew. */
  moveTokens(from: Int32Array, to: number, count: number): void {
    const { arena, table } = this.storeArgs;
    const { main, tail } = this.ring;
    const { blockTokens } = this.ring.geometry;
    // A fork may have come to share them since they were written.
    for (let at = to - (to % blockTokens); at < to + count; at += blockTokens) {
      (tail ?? main).writable(at / blockTokens);
    }
    this.backend.moveTokens({ arena, table, from, to, count });
    if (tail === null) return;
    for (let at = to - (to % blockTokens); at + blockTokens <= to + count; at += blockTokens) {
      this.quantise(at / blockTokens, tail.idOf(at / blockTokens));
    }
  }

  /** @internal As another layer of the same cache, whose blocks this ring holds now. */
  adopt(other: KvLayer): void {
    this.setTail(other.tailFrom, other.floatSinks);
  }

  /** @internal The sequence begins with `length` tokens of others, none of them in the tail. */
  beginAt(length: number): void {
    if (this.ring.tail === null || length === 0) return;
    this.setTail(length / this.ring.geometry.blockTokens, 0);
  }

  /** @internal */
  setTail(tailFrom: number, floatSinks: number): void {
    this.tailFrom = tailFrom;
    this.floatSinks = floatSinks;
  }
}
