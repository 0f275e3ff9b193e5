/**
 * The block ids of the arenas of a layer group, each with the number of its holders: sequences, and the store of shared
 * prefixes. Every layer's arena has the same blocks, so one pool serves all.
 */
import { GqaError } from '../core/errors';

export class BlockPool {
  /** Holders of each id ever taken; 0 for one that is free again. */
  private readonly holders: number[] = [];
  private readonly free: number[] = [];
  private most = 0;

  constructor(readonly blocks: number) {}

  /** Blocks that somebody holds, now and at most so far. */
  get used(): number {
    return this.holders.length - this.free.length;
  }

  get highWater(): number {
    return this.most;
  }

  /** Blocks that nobody holds. */
  get available(): number {
    return this.blocks - this.used;
  }

  /** A block that nobody holds; the caller is its holder. */
  take(): number {
    let id = this.free.pop();
    if (id === undefined) {
      if (this.holders.length === this.blocks) {
        throw new GqaError('INTERNAL', `The block pool of ${this.blocks} blocks is empty`);
      }
      id = this.holders.push(0) - 1;
    }
    this.holders[id] = 1;
    if (this.used > this.most) this.most = this.used;
    return id;
  }

  /** One more holder. */
  hold(id: number): void {
    this.holders[id]++;
  }

  /** One holder less; the last one frees the block. */
  drop(id: number): void {
    if (--this.holders[id] === 0) this.free.push(id);
  }

  isShared(id: number): boolean {
    return this.holders[id] > 1;
  }

  /** Holders of an id. */
  holdersOf(id: number): number {
    return this.holders[id] ?? 0;
  }
}
