/** One layer of a sequence, as attention sees it: keys and values of positions 0 .. length - 1, sinks and window held. */
import type { Arena, CacheSource, StoreArgs } from '../backend/contract';
import type { FloatDType } from '../core/dtype';
import type { FloatData } from '../core/dtype';
import type { KvSequence } from './sequence';

const NO_DATA = new Float32Array(0);

export class KvLayer {
  /** @internal What a backend reads; the block table is the sequence's, the arena the layer's. */
  readonly source: CacheSource;
  /** Reused by every append, so that a decode step allocates nothing. */
  private readonly storeArgs: StoreArgs;

  /** @internal Use `sequence.layer(index)`. */
  constructor(
    readonly sequence: KvSequence,
    readonly index: number,
    arena: Arena,
  ) {
    const table = sequence.ring.table;
    this.source = { type: 'cache', arena, table, tail: null };
    this.storeArgs = {
      arena,
      table,
      k: NO_DATA,
      v: NO_DATA,
      dtype: 'f32',
      from: 0,
      count: 0,
      position: 0,
    };
  }

  /** Tokens of this layer, its own append of an unfinished step included. */
  get length(): number {
    return this.sequence.ring.layerLength(this.index);
  }

  /** Oldest position of the recent run that this layer holds; 0 until something was evicted. */
  get start(): number {
    return this.sequence.ring.startAt(this.length);
  }

  /** @internal Writes rows [from, from + count) of k and v at `position` and on; their blocks are assigned. */
  store(
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
    args.from = from;
    args.count = count;
    args.position = position;
    try {
      this.sequence.cache.backend.store(args);
    } finally {
      args.k = NO_DATA;
      args.v = NO_DATA;
    }
  }
}
