/** Blocks of shared prefixes in a store, as the store's own thread finds and keeps them; see prefix-store.ts. */
import { createHash } from 'node:crypto';
import { GqaError } from '../core/errors';
import { prefixDigests } from '../kv-cache/snapshot/prefix-blocks';
import type { RedisBlockStore } from '../kv-cache/snapshot/redis-store';
import type { StoreConnection } from './store-connection';

/** Blocks that are asked for at once: enough to fill a connection, few enough to be in vain. */
const BATCH = 4;
/** Part of every key: changes with what the bytes of a block mean. */
const KEY_VERSION = 'v1';

export interface ServiceCounts {
  /** Blocks that were asked for and found, and those that were not. */
  hits: number;
  misses: number;
  /** Lookups and writes that failed or took too long. */
  errors: number;
  /** Values that were not what had been put under their key. */
  corrupt: number;
  /** Blocks written. */
  written: number;
  /** Blocks not written, for want of a connection. */
  dropped: number;
}

export class PrefixService {
  readonly counts: ServiceCounts = {
    hits: 0,
    misses: 0,
    errors: 0,
    corrupt: 0,
    written: 0,
    dropped: 0,
  };
  private readonly model: string;
  /** Ends with the last write. */
  private writing: Promise<void> = Promise.resolve();

  constructor(
    private readonly connection: StoreConnection,
    private readonly settings: { identity: string; blockTokens: number; timeoutMs: number },
  ) {
    this.model = createHash('sha256').update(settings.identity).digest('hex');
  }

  /** The blocks of these tokens from `fromBlock` on, up to the first that is not there or does not come in time. */
  async find(tokens: ArrayLike<number>, fromBlock: number): Promise<Uint8Array[]> {
    const { counts, connection } = this;
    const keys = this.keysOf(tokens, Math.floor(tokens.length / this.settings.blockTokens));
    const wanted = keys.slice(fromBlock);
    const found: Uint8Array[] = [];
    const { reads } = connection;
    if (reads !== null && wanted.length > 0) {
      const answers = await this.read(reads, wanted, found);
      if (answers > 0) connection.succeeded();
      else {
        counts.errors++;
        connection.failed();
      }
    }
    counts.hits += found.length;
    counts.misses += wanted.length - found.length;
    return found;
  }

  /** Fills `found`. @returns how many times the store answered, if only that it has nothing */
  private async read(
    store: RedisBlockStore,
    keys: readonly string[],
    found: Uint8Array[],
  ): Promise<number> {
    let answers = 0;
    let timer: NodeJS.Timeout | undefined;
    const late = new Promise<'late'>((resolve) => {
      timer = setTimeout(() => resolve('late'), this.settings.timeoutMs);
    });
    try {
      while (found.length < keys.length) {
        const some = keys.slice(found.length, found.length + BATCH);
        const reads = some.map((key) => Promise.race([this.get(store, key), late]));
        const values = await Promise.all(reads);
        answers += values.filter((value) => typeof value !== 'string').length;
        const end = values.findIndex((value) => !(value instanceof Uint8Array));
        found.push(...(values.slice(0, end < 0 ? BATCH : end) as Uint8Array[]));
        if (end >= 0) break;
      }
    } finally {
      clearTimeout(timer);
    }
    return answers;
  }

  private async get(store: RedisBlockStore, key: string): Promise<Uint8Array | null | 'failed'> {
    try {
      return await store.get(key);
    } catch (error) {
      if (!(error instanceof GqaError) || error.code !== 'INVALID_SNAPSHOT') return 'failed';
      // Out of the way of the next one who writes the block.
      this.counts.corrupt++;
      store.delete(key).catch(() => undefined);
      return null;
    }
  }

  /** Writes what the store does not have, after all that came before; what it has lives on for the whole time again. */
  async put(
    tokens: ArrayLike<number>,
    firstBlock: number,
    blocks: readonly Uint8Array[],
  ): Promise<void> {
    const keys = this.keysOf(tokens, firstBlock + blocks.length);
    const write = async (): Promise<void> => {
      for (let i = 0; i < blocks.length; i++) await this.write(keys[firstBlock + i], blocks[i]);
    };
    this.writing = this.writing.then(write);
    return this.writing;
  }

  private async write(key: string, bytes: Uint8Array): Promise<void> {
    const { counts, connection } = this;
    const store = connection.writes;
    if (store === null) {
      counts.dropped++;
      return;
    }
    try {
      if (!(await store.has(key))) {
        await store.put(key, bytes);
        counts.written++;
      }
      connection.succeeded();
    } catch {
      counts.errors++;
      connection.failed();
    }
  }

  /** Of each of the first blocks: whose it is, and which tokens it follows from. */
  private keysOf(tokens: ArrayLike<number>, blocks: number): string[] {
    const { blockTokens } = this.settings;
    return prefixDigests(tokens, blockTokens, blocks).map(
      (digest) => `${KEY_VERSION}:${this.model}:${digest.toString('hex')}`,
    );
  }
}
