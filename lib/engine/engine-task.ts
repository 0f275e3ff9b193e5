/** One request in the worker: its tokens so far, its place in the cache, its sampler. */
import type { KvSequence } from '../kv-cache/kv-cache';
import { READ_AHEAD, type Progress, type WireRequest } from './protocol';
import { RequestSampler, type SharedScratch } from './request-sampler';
import type { Task } from './scheduler';

export class EngineTask implements Task {
  readonly id: number;
  readonly user: string | undefined;
  readonly priority: number;
  /** Prompt and answer. */
  readonly tokens: number[];
  readonly promptTokens: number;
  /** Where its keys and values are, while it runs. */
  sequence: KvSequence | null = null;
  laggingSince: number | null = null;
  /** Whether it was admitted before; its first admission looked for its prompt in the cache. */
  admitted = false;
  /** Blocks of its tokens that came from the cache, or were offered beyond this process. */
  keptBlocks = 0;
  readonly progress: Progress = { startedAt: 0, cachedTokens: 0, drafted: 0, accepted: 0 };
  private readonly endIds: ReadonlySet<number>;
  private readonly sampler: RequestSampler;
  /** Tokens that the reader has not read yet. */
  private ahead = 0;

  constructor(
    readonly request: WireRequest,
    vocabSize: number,
    scratch: SharedScratch,
  ) {
    const { id, user, priority, prompt, sampling, endIds } = request;
    this.id = id;
    this.user = user;
    this.priority = priority;
    this.tokens = [...prompt];
    this.promptTokens = prompt.length;
    this.endIds = new Set(endIds);
    this.sampler = new RequestSampler(vocabSize, sampling, prompt, scratch);
  }

  get pending(): number {
    return this.tokens.length - (this.sequence?.length ?? 0);
  }

  get left(): number {
    return this.request.maxTokens - this.generated;
  }

  get longestChunk(): number {
    return this.sequence?.longestChunk ?? Infinity;
  }

  get generated(): number {
    return this.tokens.length - this.promptTokens;
  }

  /** The next token by these logits [vocab]; whether it ends the answer, which it is no part of then. */
  choose(logits: Float32Array): { token: number; ends: boolean } {
    const token = this.sampler.choose(logits);
    return { token, ends: this.endIds.has(token) };
  }

  /** The answer grows. */
  grow(token: number, now: number): void {
    this.tokens.push(token);
    this.sampler.see(token);
    if (++this.ahead >= READ_AHEAD) this.laggingSince ??= now;
  }

  /** The reader has taken so many further tokens. */
  read(tokens: number): void {
    this.ahead -= tokens;
    if (this.ahead <= READ_AHEAD / 2) this.laggingSince = null;
  }
}
