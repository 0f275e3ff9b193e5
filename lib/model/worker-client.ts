/**
 * The main thread's end of a model's worker: sends jobs, hands out their replies, and keeps the process alive only
 * while one is under way.
 */
import { join } from 'node:path';
import { Worker } from 'node:worker_threads';
import type { BackendInfo } from '../backend/contract';
import { GqaError } from '../core/errors';
import type { WeightFacts } from './weight-cache';
import {
  unpackError,
  type Job,
  type JobReply,
  type JobResults,
  type Reply,
  type WorkerSetup,
} from './worker-protocol';

export interface TokenReply {
  token: number;
  /** When it was chosen; milliseconds on the worker's clock. */
  at: number;
}

export interface WorkerFacts {
  backend: BackendInfo;
  /** Of weights. */
  bytes: number;
  weights: WeightFacts;
}

export class WorkerClient {
  private readonly jobs = new Map<number, RunningJob>();
  private nextId = 0;
  private ended: GqaError | null = null;
  private onReady: ((reply: WorkerFacts) => void) | null = null;
  private onStartFailed: ((error: GqaError) => void) | null = null;

  private constructor(private readonly worker: Worker) {
    worker.on('message', (reply: Reply) => this.receive(reply));
    worker.on('error', (error: Error) => this.end(crashed(error)));
    worker.on('exit', () => this.end(crashed(new Error('the worker exited'))));
  }

  /** Starts a worker and waits until it has loaded the model. @throws what loading throws, a GqaError */
  static async start(setup: WorkerSetup): Promise<{ client: WorkerClient; facts: WorkerFacts }> {
    const worker = new Worker(join(__dirname, 'worker.js'), { workerData: setup });
    const client = new WorkerClient(worker);
    try {
      const facts = await new Promise<WorkerFacts>((resolve, reject) => {
        client.onReady = resolve;
        client.onStartFailed = reject;
      });
      worker.unref();
      return { client, facts };
    } catch (error) {
      await worker.terminate();
      throw error;
    }
  }

  /** Sends a job. @throws GqaError DISPOSED after dispose(), INTERNAL where the worker has crashed */
  submit<K extends Job['kind']>(job: Extract<Job, { kind: K }>): RunningJob<JobResults[K]> {
    if (this.ended !== null) {
      const { code, message } = this.ended;
      throw new GqaError(code, message, { argument: 'model', cause: this.ended });
    }
    const id = this.nextId++;
    const running = new RunningJob<JobResults[K]>();
    if (this.jobs.size === 0) this.worker.ref();
    this.jobs.set(id, running);
    this.worker.postMessage({ id, job, cancel: running.cancelBuffer });
    return running;
  }

  /** Ends the worker and what it is doing; its memory is free when the promise resolves. */
  async dispose(): Promise<void> {
    this.end(new GqaError('DISPOSED', 'This model was disposed', { argument: 'model' }));
    await this.worker.terminate();
  }

  private receive(reply: Reply): void {
    switch (reply.type) {
      case 'ready':
        this.onReady?.(reply);
        break;
      case 'start-failed':
        this.onStartFailed?.(unpackError(reply.error));
        break;
      default:
        this.jobs.get(reply.id)?.receive(reply);
        if (reply.type === 'done' || reply.type === 'failed') this.forget(reply.id);
    }
  }

  private forget(id: number): void {
    this.jobs.delete(id);
    if (this.jobs.size === 0) this.worker.unref();
  }

  private end(error: GqaError): void {
    this.ended ??= error;
    this.onStartFailed?.(error);
    for (const [id, job] of this.jobs) {
      job.cancel();
      job.fail(error);
      this.forget(id);
    }
  }
}

/** A job's replies as they come; the worker runs on whether or not anyone asks for them. */
export class RunningJob<R = JobResults[Job['kind']]> {
  readonly cancelBuffer = new SharedArrayBuffer(4);
  /** When the worker began with it; milliseconds on the worker's clock. */
  startedAt = 0;
  /** Set when all tokens have been handed out and the job is done. */
  result: R | undefined;
  private readonly tokens: TokenReply[] = [];
  private finished = false;
  private outcome: R | undefined;
  private error: GqaError | null = null;
  private wake: (() => void) | null = null;

  /** The worker stops within one step. */
  cancel(): void {
    Atomics.store(new Int32Array(this.cancelBuffer), 0, 1);
  }

  /** The next token, or null when the job is done. @throws what the job threw; signal.reason once it is aborted */
  async nextToken(signal?: AbortSignal): Promise<TokenReply | null> {
    for (;;) {
      signal?.throwIfAborted();
      const token = this.tokens.shift();
      if (token !== undefined) return token;
      if (this.error !== null) throw this.error;
      if (this.finished) {
        this.result = this.outcome;
        return null;
      }
      await this.arrival(signal);
    }
  }

  /** The result of a job without tokens. @throws as nextToken */
  async whenDone(signal?: AbortSignal): Promise<R> {
    while ((await this.nextToken(signal)) !== null);
    return this.result as R;
  }

  receive(reply: JobReply): void {
    switch (reply.type) {
      case 'started':
        this.startedAt = reply.at;
        break;
      case 'token':
        this.tokens.push(reply);
        break;
      case 'done':
        this.finished = true;
        this.outcome = reply.result as R;
        break;
      case 'failed':
        this.error = unpackError(reply.error);
        break;
    }
    this.wake?.();
  }

  fail(error: GqaError): void {
    this.error = error;
    this.wake?.();
  }

  /** Resolves when something has come, or the signal is aborted. */
  private arrival(signal: AbortSignal | undefined): Promise<void> {
    return new Promise((resolve) => {
      const done = (): void => {
        this.wake = null;
        signal?.removeEventListener('abort', done);
        resolve();
      };
      this.wake = done;
      signal?.addEventListener('abort', done);
    });
  }
}

function crashed(cause: Error): GqaError {
  const memory = (cause as NodeJS.ErrnoException).code === 'ERR_WORKER_OUT_OF_MEMORY';
  const code = memory ? 'OUT_OF_MEMORY' : 'INTERNAL';
  return new GqaError(code, `The model's thread ended: ${cause.message}`, { cause });
}
