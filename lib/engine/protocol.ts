/**
 * What the engine and its worker say to each other. The worker hears between two steps and says once a step what the
 * step brought, for all requests together.
 */
import type { BackendInfo } from '../backend/contract';
import type { Precision } from '../core/precision';
import type { KvCacheSettings } from '../model/cache-settings';
import type { WeightCacheChoice, WeightFacts } from '../model/weight-cache';
import type { PlainError } from '../model/worker-protocol';
import type { TokenLogprobs } from './logprobs';
import type { ResolvedSpeculation } from './speculation-options';
import type { EngineStats, PrefixStoreOptions, RequestSampling } from './types';

/** workerData. */
export interface EngineSetup {
  path: string;
  contextLength: number;
  cache: KvCacheSettings;
  precision: Precision;
  maxSequences: number;
  budgetTokens: number;
  stepTokens: number;
  store: PrefixStoreOptions | null;
  speculation: ResolvedSpeculation | null;
  weightCache: WeightCacheChoice;
}

export interface WireRequest {
  id: number;
  prompt: readonly number[];
  /** At least 1; what the context has room for. */
  maxTokens: number;
  sampling: RequestSampling;
  /** Tokens that end the answer and are not part of it. */
  endIds: readonly number[];
  logprobs: number;
  priority: number;
  user: string | undefined;
}

export type ToWorker =
  | { type: 'submit'; request: WireRequest }
  | { type: 'cancel'; id: number }
  /** So many further tokens were read. */
  | { type: 'read'; id: number; tokens: number };

/** How a request has gone so far. */
export interface Progress {
  /** When it was first admitted, on the clock of clock(). */
  startedAt: number;
  /** Prompt tokens found in the cache. */
  cachedTokens: number;
  drafted: number;
  accepted: number;
}

/** Tokens of one request, in one step. */
export interface WireTokens {
  id: number;
  tokens: number[];
  /** As many; empty where not asked for. */
  logprobs: TokenLogprobs[];
  progress: Progress;
}

/** How a request ended. */
export interface WireEnd {
  id: number;
  /** end: a token of endIds, which is `endId`. */
  reason: 'end' | 'length' | 'failed';
  endId: number | null;
  error: PlainError | null;
  progress: Progress;
}

/** What the worker knows of the engine's figures. */
export type WorkerStats = Omit<EngineStats, 'live'>;

export interface WorkerFacts {
  backend: BackendInfo;
  bytes: number;
  weights: WeightFacts;
}

export type FromWorker =
  | { type: 'ready'; facts: WorkerFacts; stats: WorkerStats }
  | { type: 'start-failed'; error: PlainError }
  /** `at`: when the tokens were chosen. Figures come now and then, and with every end. */
  | {
      type: 'step';
      at: number;
      tokens: WireTokens[];
      ended: WireEnd[];
      stats: WorkerStats | null;
    };

/** Tokens that a request may be ahead of its reader before it pauses; it goes on when half of them were read. */
export const READ_AHEAD = 64;

/** Milliseconds since 1970, with fractions; the same clock in all threads. */
export function clock(): number {
  return performance.timeOrigin + performance.now();
}
