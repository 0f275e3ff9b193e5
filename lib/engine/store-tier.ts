/** Shared prefixes of other processes: blocks come from the store before a request is computed, and go there after. */
import { GqaError } from '../core/errors';
import type { KvCache } from '../kv-cache/kv-cache';
import { PrefixStore } from './prefix-store';
import type { BlockTier } from './task-memory';
import type { EngineStats, PrefixStoreOptions } from './types';

export class StoreTier implements BlockTier {
  private readonly store: PrefixStore;

  /** @param identity the same for caches whose blocks mean the same, and for no others */
  constructor(
    private readonly cache: KvCache,
    options: PrefixStoreOptions,
    identity: string,
  ) {
    const { blockTokens } = cache;
    this.store = PrefixStore.start({ ...options, identity, blockTokens });
  }

  get connected(): boolean {
    return this.store.stats().connected;
  }

  put(tokens: ArrayLike<number>, firstBlock: number, blocks: readonly Uint8Array[]): void {
    this.store.put(tokens, firstBlock, blocks);
  }

  /** Whether the store could have blocks of this prompt that the cache has not. */
  mayKnow(prompt: readonly number[]): boolean {
    const ids = this.wholeBlocks(prompt);
    return this.connected && this.cache.sharedPrefix(ids) < ids.length;
  }

  /** Brings what the store has of this prompt into the cache, if it comes in time. Never rejects. */
  async fetch(prompt: readonly number[]): Promise<void> {
    const { cache, store } = this;
    const ids = this.wholeBlocks(prompt);
    const from = cache.sharedPrefix(ids) / cache.blockTokens;
    const blocks = await store.find(ids, from);
    try {
      if (blocks.length > 0) cache.importPrefix(ids, from, blocks);
    } catch (error) {
      if (!(error instanceof GqaError)) throw error;
      store.refused();
    }
  }

  stats(): NonNullable<EngineStats['store']> {
    const { connected, hits, misses, corrupt, dropped, errors } = this.store.stats();
    return { connected, hits, misses, corrupt, dropped, errors };
  }

  /** What can be found of a prompt: its last token is always computed. */
  private wholeBlocks(prompt: readonly number[]): readonly number[] {
    const { blockTokens } = this.cache;
    return prompt.slice(0, Math.floor((prompt.length - 1) / blockTokens) * blockTokens);
  }
}
