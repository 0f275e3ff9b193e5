/**
 * Runs a language model in the thread that holds it: generation, logits, scores. Synchronous; one call at a time. The
 * KV cache is kept from call to call, with as many tokens as the longest so far needed.
 */
import { getBackend } from '../backend';
import { expectedError } from '../core/errors';
import type { KvCache, KvSequence } from '../kv-cache/kv-cache';
import { cacheCapacity, type KvCacheSettings } from './cache-settings';
import { compareCaches, type CacheScore } from './compare-caches';
import { logSumExp } from './log-sum-exp';
import { Sampler, type Sampling } from './sampler';
import type { LanguageModel } from './types';

export interface GenerateJob {
  ids: readonly number[];
  maxTokens: number;
  sampling: Sampling;
  /** Tokens that end the text and are not part of it. */
  endIds: readonly number[];
}

/** 'end': the model ended the text. 'length': maxTokens. 'context': no room for more. 'cancelled': asked to stop. */
export type FinishReason = 'end' | 'length' | 'context' | 'cancelled';

export interface Score {
  /** Mean of -ln p(token | tokens before it), in nats. */
  meanNll: number;
  /** exp(meanNll). */
  perplexity: number;
  /** Tokens that were predicted: all but the first. */
  tokens: number;
}

/** True from when the caller has no more interest: asked between steps. */
export type Cancelled = () => boolean;

/** Tokens between two looks at Cancelled; JavaScript alone takes a good part of a second for each sixteen. */
const PREFILL_STEP = { native: 256, js: 16 } as const;
/** Logits of so many tokens are held at once when scoring. */
const SCORE_STEP = 64;

export class Runner {
  private cache: KvCache | null = null;
  private readonly logitsOut: Float32Array;
  private readonly prefillStep = PREFILL_STEP[getBackend().info.kind];

  constructor(
    private readonly model: LanguageModel,
    private readonly contextLength: number,
    private readonly settings: KvCacheSettings,
  ) {
    this.logitsOut = new Float32Array(model.config.vocabSize);
  }

  /**
   * Calls emit(token) for each token of the continuation, as soon as it is chosen.
   * @throws GqaError EMPTY_PROMPT, CONTEXT_EXCEEDED, OUT_OF_RANGE, NON_FINITE, OUT_OF_MEMORY
   */
  generate(job: GenerateJob, cancelled: Cancelled, emit: (token: number) => void): FinishReason {
    const { ids, maxTokens, sampling, endIds } = job;
    this.checkIds(ids);
    const room = this.windowed ? Infinity : this.contextLength - ids.length;
    const most = Math.min(maxTokens, room);
    if (most === 0) return maxTokens === 0 ? 'length' : 'context';
    const sampler = new Sampler(this.model.config.vocabSize, sampling);
    for (const id of ids) sampler.see(id);
    return this.withSequence(ids.length + most, (sequence) => {
      if (!this.prefill(ids, sequence, cancelled)) return 'cancelled';
      for (let count = 1; ; count++) {
        const token = sampler.choose(this.logitsOut);
        if (endIds.includes(token)) return 'end';
        emit(token);
        if (count === most) return most === maxTokens ? 'length' : 'context';
        if (cancelled()) return 'cancelled';
        sampler.see(token);
        this.model.forward([token], sequence, 'last', this.logitsOut);
      }
    });
  }

  /** Logits [vocab] after the last id, or null where cancelled. @throws as generate */
  logits(ids: readonly number[], cancelled: Cancelled): Float32Array | null {
    this.checkIds(ids);
    return this.withSequence(ids.length, (sequence) =>
      this.prefill(ids, sequence, cancelled) ? this.logitsOut.slice() : null,
    );
  }

  /** How well the model predicts each id from those before it, or null where cancelled. @throws as generate */
  score(ids: readonly number[], cancelled: Cancelled): Score | null {
    this.checkText(ids);
    const tokens = ids.length - 1;
    const { vocabSize } = this.model.config;
    const out = new Float32Array(Math.min(SCORE_STEP, tokens) * vocabSize);
    return this.withSequence(tokens, (sequence) => {
      let nll = 0;
      for (let from = 0; from < tokens; from += SCORE_STEP) {
        if (cancelled()) return null;
        const step = ids.slice(from, Math.min(from + SCORE_STEP, tokens));
        this.model.forward(step, sequence, 'all', out.subarray(0, step.length * vocabSize));
        step.forEach((_, i) => {
          const row = out.subarray(i * vocabSize, (i + 1) * vocabSize);
          nll += logSumExp(row) - row[ids[from + i + 1]];
        });
      }
      const meanNll = nll / tokens;
      return { meanNll, perplexity: Math.exp(meanNll), tokens };
    });
  }

  /** The same over caches of each of these kinds, or null where cancelled. @throws as generate */
  compare(
    ids: readonly number[],
    caches: readonly KvCacheSettings[],
    cancelled: Cancelled,
  ): CacheScore[] | null {
    this.checkText(
      ids,
      caches.every(({ window }) => window !== undefined),
    );
    const sizes = { contextLength: this.contextLength, step: SCORE_STEP };
    return compareCaches(this.model, ids, caches, sizes, cancelled);
  }

  dispose(): void {
    this.cache?.dispose();
    this.model.dispose();
  }

  private get windowed(): boolean {
    return this.settings.window !== undefined;
  }

  private checkText(ids: readonly number[], windowed = this.windowed): void {
    this.checkIds(ids, windowed);
    if (ids.length >= 2) return;
    throw expectedError('INVALID_ARGUMENT', 'ids', 'at least 2 tokens', String(ids.length));
  }

  private checkIds(ids: readonly number[], windowed = this.windowed): void {
    if (ids.length === 0)
      throw expectedError('EMPTY_PROMPT', 'prompt', 'at least one token', 'none');
    if (!windowed && ids.length > this.contextLength) {
      const expected = `at most ${this.contextLength} tokens, the context length,`;
      throw expectedError('CONTEXT_EXCEEDED', 'prompt', expected, String(ids.length));
    }
  }

  /** Feeds the prompt and leaves the logits after its last token in logitsOut; false where cancelled. */
  private prefill(ids: readonly number[], sequence: KvSequence, cancelled: Cancelled): boolean {
    for (let from = 0; from < ids.length; from += this.prefillStep) {
      if (cancelled()) return false;
      const step = ids.slice(from, from + this.prefillStep);
      this.model.forward(step, sequence, 'last', this.logitsOut);
    }
    return !cancelled();
  }

  private withSequence<T>(tokens: number, use: (sequence: KvSequence) => T): T {
    const sequence = this.cacheFor(tokens).sequence();
    try {
      return use(sequence);
    } finally {
      sequence.dispose();
    }
  }

  private cacheFor(tokens: number): KvCache {
    const capacity = cacheCapacity(this.settings, tokens, this.contextLength);
    if (this.cache !== null && this.cache.capacity >= capacity) return this.cache;
    this.cache?.dispose();
    this.cache = null;
    this.cache = this.model.createCache({ ...this.settings, capacity });
    return this.cache;
  }
}
