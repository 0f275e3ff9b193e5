/**
 * Blocks of prefixes, the least recently used leaf leaving first, as in a replica's cache or the shared store: chains of an
 * application's blocks and of a conversation's behind them.
 */
import type { Request } from './trace';

export class ChainCache {
  /** Blocks held of each chain, the least recently used chain first. */
  private readonly chains = new Map<string, number>();
  private used = 0;

  constructor(private readonly capacity: number) {}

  get blocks(): number {
    return this.used;
  }

  /** Leading blocks of the request's prompt that are held. */
  find({ application, conversation, commonBlocks, ownBlocks }: Request): number {
    const common = Math.min(commonBlocks, this.chains.get(`a${application}`) ?? 0);
    if (common < commonBlocks) return common;
    return common + Math.min(ownBlocks, this.chains.get(`c${conversation}`) ?? 0);
  }

  /** Holds the prompt's blocks from here on, as far as there is room. */
  add({ application, conversation, commonBlocks, ownBlocks }: Request): void {
    // What leads to others was used after them.
    this.set(`c${conversation}`, ownBlocks);
    this.set(`a${application}`, commonBlocks);
    for (const [chain, blocks] of this.chains) {
      const excess = this.used - this.capacity;
      if (excess <= 0) return;
      const left = blocks - Math.min(blocks, excess);
      this.used -= blocks - left;
      if (left > 0) this.chains.set(chain, left);
      else this.chains.delete(chain);
    }
  }

  private set(chain: string, blocks: number): void {
    const held = this.chains.get(chain) ?? 0;
    this.chains.delete(chain);
    const now = Math.max(held, blocks);
    if (now > 0) this.chains.set(chain, now);
    this.used += now - held;
  }
}
