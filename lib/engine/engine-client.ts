/**
 * The engine's end of its worker: sends requests, hands out what comes back, and keeps the process alive only while a
 * request runs.
 */
import { join } from 'node:path';
import { Worker } from 'node:worker_threads';
import { GqaError } from '../core/errors';
import { unpackError } from '../model/worker-protocol';
import type { EngineSetup, FromWorker, ToWorker, WorkerFacts, WorkerStats } from './protocol';
import type { Run } from './run';

export class EngineClient {
  /** Why nothing can be asked of the worker any more. */
  ended: GqaError | null = null;
  stats!: WorkerStats;
  private readonly runs = new Map<number, Run>();
  private onReady: ((facts: WorkerFacts) => void) | null = null;
  private onEnd: ((error: GqaError) => void) | null = null;
  private onIdle: (() => void)[] = [];

  private constructor(private readonly worker: Worker) {
    worker.on('message', (message: FromWorker) => this.receive(message));
    worker.on('error', (error: Error) => this.end(crashed(error)));
    worker.on('exit', () => this.end(crashed(new Error('the worker exited'))));
  }

  /** Starts a worker and waits until it has loaded the model. @throws what loading throws, a GqaError */
  static async start(setup: EngineSetup): Promise<{ client: EngineClient; facts: WorkerFacts }> {
    const worker = new Worker(join(__dirname, 'worker.js'), { workerData: setup });
    const client = new EngineClient(worker);
    try {
      const facts = await new Promise<WorkerFacts>((resolve, reject) => {
        client.onReady = resolve;
        client.onEnd = reject;
      });
      worker.unref();
      return { client, facts };
    } catch (error) {
      await worker.terminate();
      throw error;
    }
  }

  get size(): number {
    return this.runs.size;
  }

  send(message: ToWorker): void {
    if (this.ended === null) this.worker.postMessage(message);
  }

  add(id: number, run: Run): void {
    if (this.runs.size === 0) this.worker.ref();
    this.runs.set(id, run);
  }

  /** The run expects nothing more. */
  forget(id: number): void {
    if (!this.runs.delete(id) || this.runs.size > 0) return;
    this.worker.unref();
    for (const resolve of this.onIdle.splice(0)) resolve();
  }

  /** Resolves when nothing runs. */
  whenIdle(): Promise<void> {
    return this.runs.size === 0
      ? Promise.resolve()
      : new Promise((resolve) => this.onIdle.push(resolve));
  }

  /** Ends the worker and what it is doing; its memory is free when the promise resolves. */
  async dispose(): Promise<void> {
    this.end(new GqaError('DISPOSED', 'This engine was disposed', { argument: 'engine' }));
    await this.worker.terminate();
  }

  private receive(message: FromWorker): void {
    switch (message.type) {
      case 'ready':
        this.stats = message.stats;
        this.onReady?.(message.facts);
        break;
      case 'start-failed':
        this.end(unpackError(message.error));
        break;
      case 'step':
        this.stats = message.stats ?? this.stats;
        for (const tokens of message.tokens) this.runs.get(tokens.id)?.push(tokens, message.at);
        for (const end of message.ended) this.runs.get(end.id)?.close(end);
    }
  }

  private end(error: GqaError): void {
    this.ended ??= error;
    this.onEnd?.(error);
    for (const run of [...this.runs.values()]) run.fail(error);
  }
}

function crashed(cause: Error): GqaError {
  const memory = (cause as NodeJS.ErrnoException).code === 'ERR_WORKER_OUT_OF_MEMORY';
  const code = memory ? 'OUT_OF_MEMORY' : 'INTERNAL';
  return new GqaError(code, `The engine's thread ended: ${cause.message}`, { cause });
}
