/** What routes share: the engine, the options, which answers are under way. */
import { createHash } from 'node:crypto';
import type { FastifyReply, FastifyRequest } from 'fastify';
import type { EngineLike } from '../engine/types';
import { unavailable } from './errors';
import type { Metrics } from './metrics';
import type { ResolvedServerOptions } from './options';

/** What an answer under way holds: aborted when its client is gone, or when the server must end. */
export class Answers {
  private readonly active = new Set<AbortController>();
  private whenIdle: (() => void)[] = [];
  /** Seconds of an answer, a moving mean. */
  private seconds = 1;

  get size(): number {
    return this.active.size;
  }

  /** Runs `body` with a signal that the end of the client's connection aborts. */
  async run<T>(reply: FastifyReply, body: (signal: AbortSignal) => Promise<T>): Promise<T> {
    const controller = new AbortController();
    const onClose = () => {
      if (!reply.raw.writableFinished) controller.abort(new ClientGone());
    };
    const began = performance.now();
    this.active.add(controller);
    reply.raw.on('close', onClose);
    // The client may have left before its request was looked at.
    if (reply.raw.destroyed) onClose();
    try {
      return await body(controller.signal);
    } finally {
      reply.raw.off('close', onClose);
      // Whatever still runs for this answer has nobody to read it.
      controller.abort(new ClientGone());
      this.active.delete(controller);
      this.seconds += ((performance.now() - began) / 1000 - this.seconds) / 16;
      if (this.active.size === 0) for (const resolve of this.whenIdle.splice(0)) resolve();
    }
  }

  /** Resolves when no answer is under way. */
  idle(): Promise<void> {
    if (this.active.size === 0) return Promise.resolve();
    return new Promise((resolve) => this.whenIdle.push(resolve));
  }

  abort(reason: Error): void {
    for (const controller of this.active) controller.abort(reason);
  }

  /** Seconds after which one of `waiting` requests should have its turn, of whole ones from 1 to 60. */
  retryAfter(waiting: number, running: number): number {
    const seconds = Math.ceil((this.seconds * waiting) / Math.max(running, 1));
    return Math.min(Math.max(seconds, 1), 60);
  }
}

/** Why a run was aborted whose client has closed its connection. */
export class ClientGone extends Error {
  constructor() {
    super('the client has closed its connection');
  }
}

export class ServerContext {
  readonly answers = new Answers();
  /** Set by drain: no new requests. */
  draining = false;
  private readonly keys: ReadonlySet<string>;

  constructor(
    readonly engine: EngineLike,
    readonly options: ResolvedServerOptions,
    readonly metrics: Metrics,
  ) {
    this.keys = new Set(options.apiKeys.map(digest));
  }

  /** Whether a request may do what needs a key. Comparing digests tells nothing of a key by its timing. */
  mayUse(request: FastifyRequest): boolean {
    if (this.keys.size === 0) return true;
    const key = bearerToken(request);
    return key !== undefined && this.keys.has(digest(key));
  }

  /** @throws ApiError 503 where nothing can be generated */
  requireReady(): void {
    if (this.draining) {
      throw unavailable('The server is shutting down.', 'shutting_down', 1);
    }
    if (!this.engine.stats().live) {
      throw unavailable('The engine has died: the server needs a restart.', 'engine_dead');
    }
  }

  retryAfter(): number {
    const { waiting, running } = this.engine.stats();
    return this.answers.retryAfter(waiting, running);
  }
}

function digest(key: string): string {
  return createHash('sha256').update(key).digest('base64');
}

export function bearerToken(request: FastifyRequest): string | undefined {
  return /^Bearer +(\S+) *$/i.exec(request.headers.authorization ?? '')?.[1];
}
