/** A BlockStore in Redis or Valkey, through a client that the caller made and connected. */
import { performance } from 'node:perf_hooks';
import { setTimeout as sleep } from 'node:timers/promises';
import { isUint8Array } from 'node:util/types';
import { expectedError } from '../../core/errors';
import { describe, requireInteger, requireOptions } from '../../core/validate';
import { requireName, seal, storeFailed, storing, unseal } from './store';
import type { BlockStore } from './store';

/** What a store needs of a client of the npm package `redis` (createClient, createSentinel or a pool; version 4 and on). */
export interface RedisClient {
  sendCommand(args: (string | Buffer)[], options?: object): Promise<unknown>;
  /** False while the client has no connection. */
  readonly isReady?: boolean;
}

export interface RedisBlockStoreOptions {
  /** Before every key; default 'gqa:'. */
  prefix?: string;
  /** Seconds after which a value that was neither put nor looked for again is gone; by default it stays. */
  ttlSeconds?: number;
  /** A command that takes longer has failed; default 30,000. */
  timeoutMs?: number;
}

/** Replies as bytes: the first is understood by version 4 of the client, the second by those after it. */
const BYTES = { returnBuffers: true, typeMapping: { [36 /* a bulk string */]: Buffer } };
/** How often it is looked whether the connection is still there. */
const POLL_MS = 50;

/**
 * Keeps blocks as values of a Redis or Valkey server, each behind a checksum of its own, which get checks. Without a
 * connection, or where the server answers too late, every method rejects with STORE_FAILED; the client's own
 * reconnecting goes on, and so the store works again when the server does.
 */
export class RedisBlockStore implements BlockStore {
  private readonly prefix: string;
  private readonly ttlSeconds: number | null;
  private readonly timeoutMs: number;

  /** @throws GqaError INVALID_ARGUMENT, OUT_OF_RANGE, NON_FINITE. */
  constructor(
    private readonly client: RedisClient,
    options: RedisBlockStoreOptions = {},
  ) {
    if (typeof (client as RedisClient | null | undefined)?.sendCommand !== 'function') {
      const expected = 'a connected client of the npm package redis';
      throw expectedError('INVALID_ARGUMENT', 'client', expected, describe(client));
    }
    requireOptions(options, 'options');
    const { prefix = 'gqa:', ttlSeconds, timeoutMs = 30_000 } = options;
    if (typeof prefix !== 'string') {
      throw expectedError('INVALID_ARGUMENT', 'options.prefix', 'text', describe(prefix));
    }
    this.prefix = prefix;
    this.ttlSeconds =
      ttlSeconds === undefined
        ? null
        : requireInteger(ttlSeconds, 'options.ttlSeconds', 1, 2 ** 31 - 1);
    this.timeoutMs = requireInteger(timeoutMs, 'options.timeoutMs', 1);
  }

  /** @throws GqaError STORE_FAILED, INVALID_SNAPSHOT (the value is damaged), INVALID_ARGUMENT. */
  async get(key: string): Promise<Uint8Array | null> {
    const value = await this.send(['GET', this.keyOf(key)]);
    if (value === null) return null;
    if (!isUint8Array(value)) throw storeFailed('store', 'GET', value);
    return unseal(key, value);
  }

  /** @throws GqaError STORE_FAILED, INVALID_ARGUMENT. */
  async put(key: string, bytes: Uint8Array): Promise<void> {
    const expiry = this.ttlSeconds === null ? [] : ['EX', String(this.ttlSeconds)];
    const reply = await this.send(['SET', this.keyOf(key), seal(key, bytes), ...expiry]);
    if (String(reply) !== 'OK') throw storeFailed('store', 'SET', reply);
  }

  /** Whether there is a value; if so it stays for ttlSeconds from now. @throws GqaError STORE_FAILED, INVALID_ARGUMENT. */
  async has(key: string): Promise<boolean> {
    const name = this.keyOf(key);
    const { ttlSeconds } = this;
    const reply = await this.send(
      ttlSeconds === null ? ['EXISTS', name] : ['EXPIRE', name, String(ttlSeconds)],
    );
    return Number(reply) === 1;
  }

  /** @throws GqaError STORE_FAILED, INVALID_ARGUMENT. */
  async delete(key: string): Promise<void> {
    await this.send(['DEL', this.keyOf(key)]);
  }

  private keyOf(key: string): string {
    return this.prefix + requireName(key, 'key');
  }

  private async send(args: (string | Buffer)[]): Promise<unknown> {
    return storing('store', String(args[0]), async () => {
      const unanswered = new AbortController();
      const { signal } = unanswered;
      try {
        // The two names under which clients take a signal: a command that was not sent yet is dropped.
        const options = { ...BYTES, abortSignal: signal, signal };
        return await Promise.race([this.failure(signal), this.client.sendCommand(args, options)]);
      } finally {
        unanswered.abort();
      }
    });
  }

  /**
   * Rejects when there is no connection, or no answer in time. Clients themselves keep what they could not send until
   * they are connected again, perhaps for ever.
   */
  private async failure(answered: AbortSignal): Promise<never> {
    const end = performance.now() + this.timeoutMs;
    while (this.client.isReady !== false && performance.now() < end) {
      await sleep(Math.min(POLL_MS, this.timeoutMs), undefined, { signal: answered });
    }
    throw new Error(
      this.client.isReady === false
        ? 'the client is not connected'
        : `no answer within ${this.timeoutMs} ms`,
    );
  }
}
