/** The block ids of an arena that no sequence holds. Every layer's arena has the same blocks, so one pool serves all. */
import { GqaError } from '../core/errors';

export class BlockPool {
  /** Ids from here on were never taken. */
  private fresh = 0;
  private readonly returned: number[] = [];

  constructor(readonly blocks: number) {}

  take(): number {
    const id = this.returned.pop();
    if (id !== undefined) return id;
    if (this.fresh === this.blocks) {
      throw new GqaError('INTERNAL', `The block pool of ${this.blocks} blocks is empty`);
    }
    return this.fresh++;
  }

  giveBack(id: number): void {
    this.returned.push(id);
  }
}
