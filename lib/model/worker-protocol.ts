/**
 * What the main thread and the worker that holds a model say to each other. Jobs are answered in the order they come,
 * each by any number of `token` messages and then one `done` or `failed`.
 */
import type { BackendInfo } from '../backend/contract';
import type { Precision } from '../core/precision';
import { GqaError, type GqaErrorCode } from '../core/errors';
import type { KvCacheSettings } from './cache-settings';
import type { CacheScore } from './compare-caches';
import type { FinishReason, GenerateJob, Score } from './runner';
import type { WeightCacheChoice, WeightFacts } from './weight-cache';

/** workerData. */
export interface WorkerSetup {
  path: string;
  contextLength: number;
  cache: KvCacheSettings;
  precision: Precision;
  weightCache: WeightCacheChoice;
}

export type Job =
  | { kind: 'generate'; job: GenerateJob }
  | { kind: 'logits'; ids: readonly number[] }
  | { kind: 'score'; ids: readonly number[] }
  | { kind: 'compare'; ids: readonly number[]; caches: readonly KvCacheSettings[] };

export interface JobResults {
  generate: FinishReason;
  logits: Float32Array | null;
  score: Score | null;
  compare: CacheScore[] | null;
}

export interface Request {
  id: number;
  job: Job;
  /** One Int32; not 0: cancelled. */
  cancel: SharedArrayBuffer;
}

/** Times are milliseconds on the worker's clock. */
export type JobReply =
  | { type: 'started'; id: number; at: number }
  | { type: 'token'; id: number; token: number; at: number }
  | { type: 'done'; id: number; result: JobResults[Job['kind']] }
  | { type: 'failed'; id: number; error: PlainError };

/** The first message of a worker is one of the first two. */
export type Reply =
  | { type: 'ready'; backend: BackendInfo; bytes: number; weights: WeightFacts }
  | { type: 'start-failed'; error: PlainError }
  | JobReply;

/** An error as structured clone carries it: classes do not survive. */
export interface PlainError {
  code: GqaErrorCode;
  message: string;
  stack: string | undefined;
  argument: string | undefined;
  expected: string | undefined;
  received: string | undefined;
}

export function packError(error: unknown): PlainError {
  const { message, stack } = error instanceof Error ? error : new Error(String(error));
  const known = error instanceof GqaError ? error : undefined;
  return {
    code: known?.code ?? 'INTERNAL',
    message,
    stack,
    argument: known?.argument,
    expected: known?.expected,
    received: known?.received,
  };
}

/** The same error again; its stack tells where in the worker it arose. */
export function unpackError(plain: PlainError): GqaError {
  const error = new GqaError(plain.code, plain.message, plain);
  if (plain.stack !== undefined) error.stack = plain.stack;
  return error;
}
