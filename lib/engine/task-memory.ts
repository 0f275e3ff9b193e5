/** The scheduler's view of the KV cache: sequences are given with what shared prefixes hold, and leave theirs behind. */
import type { KvCache } from '../kv-cache/kv-cache';
import type { EngineTask } from './engine-task';
import type { Entry, Memory } from './scheduler';

/** Where blocks of shared prefixes are kept beyond this process. */
export interface BlockTier {
  readonly connected: boolean;
  put(tokens: ArrayLike<number>, firstBlock: number, blocks: readonly Uint8Array[]): void;
}

export interface TaskMemoryOptions {
  capacityTokens: number;
  /** Is told of sequences that are about to go. */
  onLeave: (task: EngineTask) => void;
  tier: BlockTier | null;
}

export class TaskMemory implements Memory<EngineTask> {
  /** Prompt tokens that were looked for in the cache at a request's first admission, and those found. */
  lookupTokens = 0;
  hitTokens = 0;

  constructor(
    private readonly cache: KvCache,
    private readonly options: TaskMemoryOptions,
  ) {}

  get capacityTokens(): number {
    return this.options.capacityTokens;
  }

  enter(task: EngineTask): void {
    // The last token is always computed: its logits are needed.
    const sequence = this.cache.lookup(task.tokens.slice(0, -1));
    task.sequence = sequence;
    if (task.admitted) return;
    task.progress.cachedTokens = sequence.length;
    task.keptBlocks = Math.floor(sequence.length / this.cache.blockTokens);
  }

  /** The task has been admitted for the first time, for good: a look that led to nothing does not count. */
  count(task: EngineTask, now: number): void {
    task.admitted = true;
    task.progress.startedAt = now;
    this.lookupTokens += task.promptTokens;
    this.hitTokens += task.progress.cachedTokens;
  }

  leave(task: EngineTask): void {
    const { sequence } = task;
    if (sequence === null) return;
    this.options.onLeave(task);
    this.offer(task);
    sequence.dispose();
    task.sequence = null;
  }

  fits(entries: readonly Entry<EngineTask>[]): boolean {
    return this.cache.fits(
      entries.map(({ task, tokens }) => {
        const sequence = task.sequence!;
        // A window's ring has its blocks after so many.
        return { sequence, tokens: Math.min(tokens, sequence.longestChunk) };
      }),
    );
  }

  /** Tokens of the budget that hold something, and those of them that only shared prefixes hold. */
  usage(): { usedTokens: number; sharedTokens: number } {
    const { cache, capacityTokens } = this;
    const usedTokens = Math.round((cache.usedBytes / cache.bytes) * capacityTokens);
    return {
      usedTokens,
      sharedTokens: Math.max(0, cache.freeTokens - capacityTokens + usedTokens),
    };
  }

  /** Offers what the task's sequence holds to later requests, and to other processes what is new of it. */
  offer(task: EngineTask): void {
    const { cache } = this;
    const { tier } = this.options;
    const sequence = task.sequence!;
    // What a window has passed cannot be found from its beginning.
    if (sequence.start > 0 || sequence.count.underWay) return;
    const ids = task.tokens.slice(0, sequence.length);
    const blocks = Math.floor(sequence.share(ids) / cache.blockTokens);
    if (tier === null || !tier.connected || blocks <= task.keptBlocks) return;
    const bytes = cache.exportPrefix(ids, task.keptBlocks, blocks);
    tier.put(ids.slice(0, blocks * cache.blockTokens), task.keptBlocks, bytes);
    task.keptBlocks = blocks;
  }
}
