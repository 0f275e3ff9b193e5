/** The engine as callers see it: tokenizer and texts in this thread, all arithmetic in a worker. */
import { basename, extname } from 'node:path';
import { expectedError, GqaError } from '../core/errors';
import { openCheckpoint } from '../model/checkpoint';
import type { EncodeOptions, Tokenizer } from '../model/tokenizer';
import { Encoder } from './encoder';
import { EngineClient } from './engine-client';
import { resolveEngineOptions, type ResolvedEngine } from './engine-options';
import { clock, type WorkerFacts } from './protocol';
import { checkRequest } from './request';
import { Run } from './run';
import type {
  EngineLike,
  EngineModel,
  EngineOptions,
  EngineRequest,
  EngineRun,
  EngineStats,
  ResolvedRequest,
} from './types';

/**
 * Continues many prompts at once (docs/engine.md). The process ends by itself when no request runs, dispose() or not.
 */
export class Engine implements EngineLike {
  readonly model: EngineModel;
  private nextId = 0;
  private draining = false;
  private readonly endIds: readonly number[];

  private constructor(
    /** In this thread. */
    readonly tokenizer: Tokenizer,
    model: Omit<EngineModel, keyof WorkerFacts>,
    private readonly client: EngineClient,
    facts: WorkerFacts,
    private readonly settings: ResolvedEngine,
    private readonly encoder: Encoder,
  ) {
    this.model = { ...model, ...facts };
    this.endIds = model.config.eosTokenIds;
  }

  /**
   * Loads a model from a Hugging Face folder or a GGUF file.
   *
   * @throws GqaError INVALID_ARGUMENT, OUT_OF_RANGE, INVALID_DTYPE; INVALID_FILE, UNSUPPORTED_MODEL, OUT_OF_MEMORY,
   *   BACKEND_UNAVAILABLE
   */
  static async start(path: string, options: EngineOptions = {}): Promise<Engine> {
    const checkpoint = openCheckpoint(path);
    try {
      const { config } = checkpoint;
      const settings = resolveEngineOptions(options, config, basename(path, extname(path)));
      // The worker loads weights while this thread builds the tokenizer.
      const starting = EngineClient.start({ path, ...settings });
      let tokenizer: Tokenizer;
      try {
        tokenizer = checkpoint.tokenizer();
      } catch (error) {
        await starting.then(({ client }) => client.dispose()).catch(() => undefined);
        throw error;
      }
      const { client, facts } = await starting;
      const { contextLength, name: id } = settings;
      const model = { id, config, contextLength, createdAt: Date.now() };
      const encoder = new Encoder(path, tokenizer);
      return new Engine(tokenizer, model, client, facts, settings, encoder);
    } finally {
      checkpoint.weights.close();
    }
  }

  /**
   * Continues a prompt. It ends at an end-of-text token or a stop string (neither is part of the answer), at maxTokens, or
   * where the context is full. It runs a little ahead of its reader and waits then, it alone.
   *
   * @throws GqaError QUEUE_FULL, CONTEXT_EXCEEDED, EMPTY_PROMPT, INVALID_ARGUMENT, OUT_OF_RANGE, NON_FINITE; DISPOSED
   *   after dispose() or drain(); INTERNAL or OUT_OF_MEMORY where the worker has died. signal.reason
   */
  submit(request: EngineRequest): EngineRun {
    this.checkLive();
    const { config, contextLength } = this.model;
    const windowed = this.settings.cache.window !== undefined;
    const checked = checkRequest(request, config.vocabSize, { contextLength, windowed });
    const { maxSequences, maxQueue } = this.settings;
    if (this.client.size >= maxSequences + maxQueue) {
      const expected = `at most ${maxQueue} waiting requests`;
      throw expectedError('QUEUE_FULL', 'request', expected, 'one more');
    }
    checked.signal?.throwIfAborted();
    return this.begin(checked);
  }

  /**
   * Token ids of a text, as tokenizer.encode gives them, without holding up the event loop.
   * @throws GqaError as tokenizer.encode; DISPOSED; INTERNAL where the thread that does it ends
   */
  encode(text: string, options?: EncodeOptions): Promise<number[]> {
    return this.encoder.encode(text, options);
  }

  stats(): EngineStats {
    const { stats, ended } = this.client;
    // The worker hears of requests between steps.
    const waiting = Math.max(0, this.client.size - stats.running);
    return { ...stats, live: ended === null, waiting };
  }

  /** No new requests; resolves when all that run have ended. */
  async drain(): Promise<void> {
    this.draining = true;
    await this.client.whenIdle();
  }

  /** Ends what is running (it rejects with DISPOSED), the worker, and frees its memory. Safe to call twice. */
  async dispose(): Promise<void> {
    await Promise.all([this.client.dispose(), this.encoder.dispose()]);
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.dispose();
  }

  private begin(request: ResolvedRequest): EngineRun {
    const { client } = this;
    const id = this.nextId++;
    const run = new Run(request, this.tokenizer, clock(), {
      cancel: () => client.send({ type: 'cancel', id }),
      read: (tokens) => client.send({ type: 'read', id, tokens }),
      ended: () => client.forget(id),
    });
    const { prompt, maxTokens, sampling, logprobs, priority, user } = request;
    client.add(id, run);
    if (maxTokens === 0) {
      const now = clock();
      const progress = { startedAt: now, cachedTokens: 0, drafted: 0, accepted: 0 };
      run.close({ id, reason: 'length', endId: null, error: null, progress });
      return run;
    }
    const endIds = this.endIdsOf(request);
    const wire = { id, prompt, maxTokens, sampling, endIds, logprobs, priority, user };
    client.send({ type: 'submit', request: wire });
    return run;
  }

  /** A stop string that spells a special token is that token. */
  private endIdsOf({ stop, ignoreEos }: ResolvedRequest): number[] {
    const { available } = this.tokenizer;
    const special = (text: string): number[] => {
      const id = available ? this.tokenizer.specialTokenId(text) : undefined;
      return id === undefined ? [] : [id];
    };
    return [...(ignoreEos ? [] : this.endIds), ...stop.flatMap(special)];
  }

  private checkLive(): void {
    const { ended } = this.client;
    if (ended !== null) {
      throw new GqaError(ended.code, ended.message, { argument: 'engine', cause: ended });
    }
    if (!this.draining) return;
    throw expectedError('DISPOSED', 'engine', 'an engine that takes requests', 'one that drains');
  }
}
