/** The blocks of one sequence in one layer group: a ring over the main arenas' blocks, and one over the tails'. */
import type { BlockTable } from '../backend/contract';
import type { BlockPool } from './block-pool';
import type { RingGeometry, RingSlots } from './geometry';
import { mainEnd, slotOf, startAfter } from './geometry';

/** No block yet in a slot. */
export const UNASSIGNED = -1;

/** Copies a block's contents in every layer of the group. */
export type CopyBlock = (from: number, to: number) => void;

/** A table whose ids are held in a pool. A block that others hold too is copied before it is written. */
export class BlockSlots {
  readonly table: BlockTable;

  constructor(
    slots: RingSlots,
    private readonly pool: BlockPool,
    private readonly copyBlock: CopyBlock,
  ) {
    const { sinkBlocks, ringBlocks } = slots;
    const ids = new Int32Array(sinkBlocks + ringBlocks).fill(UNASSIGNED);
    this.table = { ids, sinkBlocks, ringBlocks };
  }

  idOf(ordinal: number): number {
    return this.table.ids[slotOf(this.table, ordinal)];
  }

  /** The block of an ordinal, this ring's alone from here on. */
  writable(ordinal: number): number {
    const { ids } = this.table;
    const slot = slotOf(this.table, ordinal);
    const held = ids[slot];
    if (held !== UNASSIGNED && !this.pool.isShared(held)) return held;
    const id = this.pool.take();
    if (held !== UNASSIGNED) {
      this.copyBlock(held, id);
      this.pool.drop(held);
    }
    ids[slot] = id;
    return id;
  }

  /** Holds a block of somebody else's at an ordinal whose slot is empty. */
  adopt(ordinal: number, id: number): void {
    this.pool.hold(id);
    this.table.ids[slotOf(this.table, ordinal)] = id;
  }

  /** Holds the same blocks as another, whose slots are as many. */
  adoptAll(other: BlockSlots): void {
    const { ids } = this.table;
    ids.set(other.table.ids);
    for (const id of ids) if (id !== UNASSIGNED) this.pool.hold(id);
  }

  /** Lets go of the blocks of ordinals [from, to). */
  drop(from: number, to: number): void {
    const { ids } = this.table;
    for (let ordinal = from; ordinal < to; ordinal++) {
      const slot = slotOf(this.table, ordinal);
      if (ids[slot] === UNASSIGNED) continue;
      this.pool.drop(ids[slot]);
      ids[slot] = UNASSIGNED;
    }
  }

  /** Lets go of every block. */
  clear(): void {
    const { ids } = this.table;
    for (const id of ids) if (id !== UNASSIGNED) this.pool.drop(id);
    ids.fill(UNASSIGNED);
  }
}

export class BlockRing {
  /** Largest length reached, appends of dropped steps included. */
  peak = 0;

  constructor(
    readonly geometry: RingGeometry,
    readonly main: BlockSlots,
    /** Of a quantised cache; else null. */
    readonly tail: BlockSlots | null,
  ) {}

  /** Oldest position of the recent run still held by every layer; 0 until something was evicted. */
  get start(): number {
    return startAfter(this.geometry, this.peak);
  }

  /** `start` as it is, or will be, for a layer of this length. */
  startAt(layerLength: number): number {
    return startAfter(this.geometry, Math.max(this.peak, layerLength));
  }

  /** The shortest length that a sequence which has reached `peak` can be cut to. */
  shortest(peak: number): number {
    return startAfter(this.geometry, peak) === 0 ? 0 : peak - this.geometry.slack;
  }

  /**
   * The sequence is cut to `length` tokens: blocks of later ones are nobody's. Those up to the peak have slots of their
   * own, and what was reserved for a step that was dropped is no further.
   */
  cut(length: number): void {
    this.main.drop(
      mainEnd(this.geometry, length),
      Math.ceil(this.peak / this.geometry.blockTokens),
    );
  }

  adoptAll(other: BlockRing): void {
    this.peak = other.peak;
    this.main.adoptAll(other.main);
    if (this.tail !== null && other.tail !== null) this.tail.adoptAll(other.tail);
  }

  clear(): void {
    this.main.clear();
    this.tail?.clear();
  }
}
