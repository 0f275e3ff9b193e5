/** A loaded model as callers see it: tokenizer and config in this thread, weights and arithmetic in a worker. */
import { expectedError } from '../core/errors';
import { describe, requireInteger } from '../core/validate';
import type { BackendInfo } from '../backend/contract';
import { checkCacheSettings, type KvCacheSettings } from './cache-settings';
import { checkMessages, type ChatMessage } from './chat-template';
import type { CacheScore } from './compare-caches';
import { requireSignal, resolveOptions, type GenerateOptions } from './generate-options';
import { Generation } from './generation';
import type { Score } from './runner';
import type { Tokenizer } from './tokenizer';
import type { ModelConfig } from './types';
import type { WeightFacts } from './weight-cache';
import type { RunningJob, WorkerClient, WorkerFacts } from './worker-client';

/** Text, token ids, or chat messages for the model's chat template. */
export type Prompt = string | ArrayLike<number> | readonly ChatMessage[];

export interface CallOptions {
  /** Ends the computation within one step; the call rejects with signal.reason. */
  signal?: AbortSignal;
}

/**
 * Calls are answered one after the other, in the order they came; each has the KV cache to itself. The process ends by
 * itself when no call is pending, dispose() or not.
 */
export class Model {
  /** Which backend computes, in the worker. */
  readonly backend: BackendInfo;
  /** Of the weights in memory. */
  readonly bytes: number;
  /** Where they lie: in a file that processes share, or in this one's own memory, and why. */
  readonly weights: WeightFacts;

  /** @internal Use loadModel(). */
  constructor(
    readonly config: ModelConfig,
    /** Tokens that prompt and answer may have together, unless the KV cache is windowed. */
    readonly contextLength: number,
    readonly tokenizer: Tokenizer,
    private readonly client: WorkerClient,
    facts: WorkerFacts,
  ) {
    this.backend = facts.backend;
    this.bytes = facts.bytes;
    this.weights = facts.weights;
  }

  /**
   * Continues a prompt. Ids are taken as they are; a text gets BOS where the model wants it; messages go through the chat
   * template. Ends at an end-of-text token or a stop string (neither is yielded), at maxTokens, or where the context is
   * full. Computation begins with the first next() and runs ahead of a slow reader.
   *
   * The first next() rejects with GqaError EMPTY_PROMPT, CONTEXT_EXCEEDED, NO_TOKENIZER, INVALID_ARGUMENT, OUT_OF_RANGE,
   * NON_FINITE, OUT_OF_MEMORY or DISPOSED, or with the signal's reason.
   */
  generate(prompt: Prompt, options: GenerateOptions = {}): Generation {
    return new Generation(() => {
      const resolved = resolveOptions(options);
      const ids = this.promptIds(prompt);
      const { stop, maxTokens, sampling } = resolved;
      const stopIds = stop.flatMap((text) => this.tokenizer.specialTokenId(text) ?? []);
      const endIds = [...this.config.eosTokenIds, ...stopIds];
      return {
        ...resolved,
        ids,
        tokenizer: this.tokenizer,
        submit: () =>
          this.client.submit<'generate'>({
            kind: 'generate',
            job: { ids, maxTokens, sampling, endIds },
          }),
      };
    });
  }

  /**
   * Logits f32 [vocabSize] after the last token of the prompt.
   * @throws GqaError as generate; signal.reason
   */
  async logits(prompt: Prompt, options: CallOptions = {}): Promise<Float32Array> {
    const signal = requireSignal(options.signal);
    const ids = this.promptIds(prompt);
    signal?.throwIfAborted();
    const received = await whole(this.client.submit<'logits'>({ kind: 'logits', ids }), signal);
    // A typed array of this realm: what a message brings may be of another (jest has several).
    return new Float32Array(received.buffer);
  }

  /**
   * How well the model predicts each token of the prompt, but the first, from those before it.
   * @throws GqaError as generate, INVALID_ARGUMENT for less than two tokens; signal.reason
   */
  async score(prompt: Prompt, options: CallOptions = {}): Promise<Score> {
    const signal = requireSignal(options.signal);
    const ids = this.promptIds(prompt);
    signal?.throwIfAborted();
    return whole(this.client.submit<'score'>({ kind: 'score', ids }), signal);
  }

  /**
   * The same for each of several kinds of KV cache beside each other, and how far the model's predictions over it are from
   * those over the first.
   * @throws GqaError as score, and as loadModel for the settings; signal.reason
   */
  async compareCaches(
    prompt: Prompt,
    caches: readonly KvCacheSettings[],
    options: CallOptions = {},
  ): Promise<CacheScore[]> {
    const signal = requireSignal(options.signal);
    if (!Array.isArray(caches) || caches.length === 0) {
      const expected = 'an array of at least one kind of cache';
      throw expectedError('INVALID_ARGUMENT', 'caches', expected, describe(caches));
    }
    const settings = caches.map((cache, i) =>
      checkCacheSettings(cache as KvCacheSettings, 'exact', `caches[${i}]`),
    );
    const ids = this.promptIds(prompt);
    signal?.throwIfAborted();
    return whole(this.client.submit<'compare'>({ kind: 'compare', ids, caches: settings }), signal);
  }

  /** Ends what is running (it rejects with DISPOSED), the worker, and frees its memory. Safe to call twice. */
  dispose(): Promise<void> {
    return this.client.dispose();
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.dispose();
  }

  private promptIds(prompt: Prompt): number[] {
    if (typeof prompt === 'string') return this.tokenizer.encode(prompt);
    if (isMessages(prompt)) {
      checkMessages(prompt);
      // The template writes BOS itself where it is wanted.
      return this.tokenizer.encode(this.tokenizer.applyChatTemplate(prompt), { bos: false });
    }
    if (!isIdList(prompt)) {
      const expected = 'a string, token ids or chat messages';
      throw expectedError('INVALID_ARGUMENT', 'prompt', expected, describe(prompt));
    }
    const last = this.config.vocabSize - 1;
    return Array.from(prompt, (id, i) => requireInteger(id, `prompt[${i}]`, 0, last));
  }
}

/** The result of a job that is not a stream; only a cancelled job has none, and then the wait has thrown. */
async function whole<T>(job: RunningJob<T | null>, signal: AbortSignal | undefined): Promise<T> {
  try {
    return (await job.whenDone(signal)) as T;
  } finally {
    job.cancel();
  }
}

function isMessages(prompt: unknown): prompt is readonly ChatMessage[] {
  return Array.isArray(prompt) && prompt.length > 0 && typeof prompt[0] === 'object';
}

/** An array or a typed array. */
function isIdList(prompt: unknown): prompt is ArrayLike<number> {
  return Array.isArray(prompt) || (ArrayBuffer.isView(prompt) && !(prompt instanceof DataView));
}
