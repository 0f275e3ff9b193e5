/**
 * A connection to Redis or Valkey that is given up when the server is slow or gone and comes back by itself: a circuit
 * breaker. While it is open, `reads` and `writes` are null and nobody waits for anything.
 */
import { createClient } from '@redis/client';
import { RedisBlockStore } from '../kv-cache/snapshot/redis-store';

export interface ConnectionSettings {
  /** redis://…, rediss://… or unix:///path/of/socket. */
  url: string;
  ttlSeconds: number;
  /** What a read may take. */
  timeoutMs: number;
}

/** Failures in a row after which the connection is given up. */
const MOST_FAILURES = 3;
/** Milliseconds until it is tried again, at first and at most. */
const FIRST_PAUSE = 100;
const LONGEST_PAUSE = 5000;
/** Writes wait behind no one, and may take longer. */
const WRITE_TIMEOUT = 2000;
const CONNECT_TIMEOUT = 2000;
const KEY_PREFIX = 'gqa:prefix:';

type Client = ReturnType<typeof createClient>;

export class StoreConnection {
  reads: RedisBlockStore | null = null;
  writes: RedisBlockStore | null = null;
  private client: Client | null = null;
  private failures = 0;
  private pause = FIRST_PAUSE;
  private timer: NodeJS.Timeout | null = null;
  private isDisposed = false;

  constructor(
    private readonly settings: ConnectionSettings,
    private readonly onChange: () => void,
  ) {
    void this.connect();
  }

  get isConnected(): boolean {
    return this.reads !== null;
  }

  /** The server answered. */
  succeeded(): void {
    this.failures = 0;
  }

  /** It did not, or not in time, or with an error. */
  failed(): void {
    if (++this.failures >= MOST_FAILURES) this.giveUp();
  }

  dispose(): void {
    this.isDisposed = true;
    if (this.timer !== null) clearTimeout(this.timer);
    this.close();
  }

  private async connect(): Promise<void> {
    this.timer = null;
    const { url, ttlSeconds, timeoutMs } = this.settings;
    try {
      const socket = { reconnectStrategy: false as const, connectTimeout: CONNECT_TIMEOUT };
      const client: Client = createClient({ url, socket });
      this.client = client;
      client.on('error', () => this.lost(client));
      client.on('end', () => this.lost(client));
      // A server that hangs may take the connection and say nothing.
      const guard = setTimeout(() => this.lost(client), CONNECT_TIMEOUT);
      try {
        await client.connect();
        await client.sendCommand(['PING']);
      } finally {
        clearTimeout(guard);
      }
      if (this.client !== client) return;
      const options = { prefix: KEY_PREFIX, ttlSeconds };
      this.reads = new RedisBlockStore(client, { ...options, timeoutMs });
      const patient = Math.max(timeoutMs, WRITE_TIMEOUT);
      this.writes = new RedisBlockStore(client, { ...options, timeoutMs: patient });
      this.failures = 0;
      this.pause = FIRST_PAUSE;
      this.onChange();
    } catch {
      this.giveUp();
    }
  }

  private lost(client: Client): void {
    if (this.client === client) this.giveUp();
  }

  /** No store from now on; a new connection is tried after a pause, which grows. */
  private giveUp(): void {
    this.close();
    if (this.isDisposed || this.timer !== null) return;
    this.timer = setTimeout(() => void this.connect(), this.pause);
    this.pause = Math.min(2 * this.pause, LONGEST_PAUSE);
  }

  private close(): void {
    const { client } = this;
    const wasConnected = this.isConnected;
    this.client = null;
    this.reads = null;
    this.writes = null;
    // What it has not answered yet rejects now.
    if (client?.isOpen === true) client.destroy();
    if (wasConnected) this.onChange();
  }
}
