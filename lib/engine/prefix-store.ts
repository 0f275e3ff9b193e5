/**
 * A tier of shared prefixes below the cache's own, in Redis or Valkey, for all replicas of a model: blocks of
 * KvCache.exportPrefix under keys that follow from model, layout and tokens.
 *
 * It never stands in the way. Packing, checking and the network are a thread's own; a lookup has a deadline; writes go
 * behind, in a queue that drops what it has no room for; a store that is slow or gone is given up and comes back by
 * itself. What a store returns is checked, there and again by KvCache.importPrefix.
 */
import { join } from 'node:path';
import { Worker } from 'node:worker_threads';
import { expectedError } from '../core/errors';
import { describe, requireInteger, requireOptions } from '../core/validate';
import type { ServiceCounts } from './prefix-service';
import type { PrefixStoreOptions } from './types';

export interface PrefixStoreSettings extends PrefixStoreOptions {
  /** What makes blocks of equal tokens equal: the model file's hash and KvCache.prefixLayout. */
  identity: string;
  /** Tokens of a block; default 64. */
  blockTokens?: number;
  /** Bytes that may wait to be written; default 256 MiB. */
  maxPendingBytes?: number;
}

export interface PrefixStoreStats extends ServiceCounts {
  /** Whether a server answers. */
  connected: boolean;
  /** Bytes that wait to be written. */
  pendingBytes: number;
}

/** @internal workerData of the store's thread. */
export interface StoreSetup {
  url: string;
  ttlSeconds: number;
  timeoutMs: number;
  identity: string;
  blockTokens: number;
}

type ThreadStats = Omit<PrefixStoreStats, 'pendingBytes'>;

/** @internal */
export type StoreRequest =
  | { type: 'find'; id: number; tokens: Float64Array; fromBlock: number }
  | {
      type: 'put';
      tokens: Float64Array;
      firstBlock: number;
      blocks: readonly Uint8Array[];
      bytes: number;
    }
  | { type: 'end' };

/** @internal */
export type StoreReply = { stats: ThreadStats } & (
  | { type: 'found'; id: number; blocks: Uint8Array[] }
  | { type: 'written'; bytes: number }
  | { type: 'changed' }
  | { type: 'ended' }
);

const DEFAULTS = { ttlSeconds: 3600, timeoutMs: 250, blockTokens: 64, maxPendingBytes: 2 ** 28 };
/** Times the deadline after which a lookup does not even wait for the thread. */
const PATIENCE = 4;

export class PrefixStore {
  private readonly worker: Worker;
  private readonly timeoutMs: number;
  private readonly waiting = new Map<number, (blocks: Uint8Array[]) => void>();
  private nextId = 0;
  private isAlive = true;
  private readonly ended: Promise<void>;
  private reported: ThreadStats = {
    connected: false,
    hits: 0,
    misses: 0,
    errors: 0,
    corrupt: 0,
    written: 0,
    dropped: 0,
  };
  /** Of this end: blocks that the queue had no room for, and that the cache refused. */
  private overflowed = 0;
  private refusedBlocks = 0;
  private pendingBytes = 0;

  private constructor(
    setup: StoreSetup,
    private readonly maxPendingBytes: number,
  ) {
    this.worker = new Worker(join(__dirname, 'prefix-store-worker.js'), { workerData: setup });
    this.ended = new Promise((resolve) => {
      const end = (): void => {
        this.end();
        resolve();
      };
      this.worker.on('error', end);
      this.worker.on('exit', end);
    });
    this.worker.on('message', (reply: StoreReply) => this.take(reply));
    // It ends with the process.
    this.worker.unref();
    this.timeoutMs = setup.timeoutMs;
  }

  /**
   * Begins to connect; until there is a connection nothing is found or kept.
   *
   * @throws GqaError INVALID_ARGUMENT, OUT_OF_RANGE, NON_FINITE
   */
  static start(settings: PrefixStoreSettings): PrefixStore {
    requireOptions(settings, 'settings');
    const { url, identity } = settings;
    if (typeof url !== 'string' || !/^(rediss?|unix):\/\/./.test(url)) {
      const expected = 'redis://…, rediss://… or unix:///path';
      throw expectedError('INVALID_ARGUMENT', 'settings.url', expected, describe(url));
    }
    if (typeof identity !== 'string' || identity === '') {
      const expected = 'text that is not empty';
      throw expectedError('INVALID_ARGUMENT', 'settings.identity', expected, describe(identity));
    }
    const number = (name: keyof typeof DEFAULTS, most?: number): number =>
      requireInteger(settings[name] ?? DEFAULTS[name], `settings.${name}`, 1, most);
    const setup = {
      url,
      identity,
      ttlSeconds: number('ttlSeconds', 2 ** 31 - 1),
      timeoutMs: number('timeoutMs', 2 ** 31 - 1),
      blockTokens: number('blockTokens'),
    };
    return new PrefixStore(setup, number('maxPendingBytes'));
  }

  /**
   * The blocks of these tokens from `fromBlock` on, up to the first that is missing, and all that come within the
   * deadline; none where there is no connection. Never rejects.
   */
  async find(tokens: ArrayLike<number>, fromBlock: number): Promise<Uint8Array[]> {
    if (!this.isAlive) return [];
    const id = this.nextId++;
    return new Promise((resolve) => {
      const timer = setTimeout(() => {
        this.waiting.delete(id);
        resolve([]);
      }, PATIENCE * this.timeoutMs);
      this.waiting.set(id, (blocks) => {
        clearTimeout(timer);
        resolve(blocks);
      });
      this.send({ type: 'find', id, tokens: Float64Array.from(tokens), fromBlock });
    });
  }

  /**
   * Keeps blocks of KvCache.exportPrefix, those of these tokens from `firstBlock` on, some time later; they are dropped
   * where too much waits already. The blocks are the store's from here on: their memory goes to its thread.
   */
  put(tokens: ArrayLike<number>, firstBlock: number, blocks: readonly Uint8Array[]): void {
    const bytes = blocks.reduce((sum, block) => sum + block.byteLength, 0);
    const isFull = this.pendingBytes + bytes > this.maxPendingBytes;
    if (!this.isAlive || isFull || !this.reported.connected) {
      this.overflowed += blocks.length;
      return;
    }
    this.pendingBytes += bytes;
    const ids = Float64Array.from(tokens);
    const whole = blocks.filter(({ byteLength, buffer }) => byteLength === buffer.byteLength);
    const memory = new Set(whole.map(({ buffer }) => buffer as ArrayBuffer));
    this.send({ type: 'put', tokens: ids, firstBlock, blocks, bytes }, [...memory]);
  }

  /** The cache has refused a block that was found. */
  refused(): void {
    this.refusedBlocks++;
  }

  stats(): PrefixStoreStats {
    const { reported, pendingBytes, overflowed, refusedBlocks } = this;
    const { corrupt, dropped, ...others } = reported;
    const own = { corrupt: corrupt + refusedBlocks, dropped: dropped + overflowed };
    return { ...others, ...own, pendingBytes };
  }

  /** Gives the last writes two seconds, then ends; lookups that wait find nothing. */
  async dispose(): Promise<void> {
    if (this.isAlive) this.send({ type: 'end' });
    await this.ended;
  }

  private send(request: StoreRequest, transfer: ArrayBuffer[] = []): void {
    this.worker.postMessage(request, transfer);
  }

  private take(reply: StoreReply): void {
    this.reported = reply.stats;
    if (reply.type === 'written') this.pendingBytes -= reply.bytes;
    if (reply.type !== 'found') return;
    this.waiting.get(reply.id)?.(reply.blocks);
    this.waiting.delete(reply.id);
  }

  private end(): void {
    this.isAlive = false;
    this.pendingBytes = 0;
    this.reported = { ...this.reported, connected: false };
    for (const resolve of this.waiting.values()) resolve([]);
    this.waiting.clear();
  }
}
