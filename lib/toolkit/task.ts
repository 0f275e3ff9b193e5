/**
 * Long computations of the toolkit, each in a worker thread of its own, so that the event loop stays free. A task is a
 * synchronous function of options that can be cloned (tasks.ts lists them); this is the caller's end.
 */
import { join } from 'node:path';
import { Worker } from 'node:worker_threads';
import { GqaError } from '../core/errors';
import { unpackError, type PlainError } from '../model/worker-protocol';
import type { TaskKind, TaskOptionsOf, TaskResultOf } from './tasks';

/** How far a task has come. */
export interface TaskProgress {
  /** What is being done, for people: 'converting', 'training'. */
  stage: string;
  /** Of `total` units. */
  done: number;
  total: number;
  /** What else there is to see, for instance the loss. */
  detail?: string;
}

/** What a task may ask and tell while it runs. */
export interface TaskContext {
  progress(event: TaskProgress): void;
  /** True from when the caller has no more interest. */
  cancelled(): boolean;
  /** Ends the task where it has none; what the task has open is closed by its `finally`. */
  throwIfCancelled(): void;
}

export interface TaskControl {
  /** Stops the task at its next look; the promise then rejects with the signal's reason. */
  signal?: AbortSignal;
  onProgress?: (event: TaskProgress) => void;
}

export type TaskReply =
  | { type: 'progress'; event: TaskProgress }
  | { type: 'done'; result: unknown }
  | { type: 'cancelled' }
  | { type: 'failed'; error: PlainError };

/** workerData of a task. */
export interface TaskSetup {
  kind: TaskKind;
  options: unknown;
  /** One Int32; not 0: cancelled. */
  cancel: SharedArrayBuffer;
}

/** @throws what the task throws (GqaError), the signal's reason, INTERNAL where the worker dies */
export async function runTask<K extends TaskKind>(
  kind: K,
  options: TaskOptionsOf<K>,
  { signal, onProgress }: TaskControl = {},
): Promise<TaskResultOf<K>> {
  signal?.throwIfAborted();
  const cancel = new SharedArrayBuffer(4);
  const workerData: TaskSetup = { kind, options, cancel };
  const worker = new Worker(join(__dirname, 'task-worker.js'), { workerData });
  const stop = (): void => void Atomics.store(new Int32Array(cancel), 0, 1);
  signal?.addEventListener('abort', stop, { once: true });
  try {
    const reply = await lastReply(worker, onProgress);
    if (reply.type === 'failed') throw unpackError(reply.error);
    if (reply.type === 'cancelled') signal?.throwIfAborted();
    return (reply as { result: TaskResultOf<K> }).result;
  } finally {
    signal?.removeEventListener('abort', stop);
    await worker.terminate();
  }
}

type LastReply = Exclude<TaskReply, { type: 'progress' }>;

function lastReply(worker: Worker, onProgress: TaskControl['onProgress']): Promise<LastReply> {
  return new Promise((resolve, reject) => {
    const crashed = (reason: string): void =>
      reject(new GqaError('INTERNAL', `The worker of a task ended: ${reason}`));
    worker.on('error', (error: Error) => crashed(error.message));
    worker.on('exit', (code) => crashed(`exit code ${code}`));
    worker.on('message', (reply: TaskReply) => {
      if (reply.type !== 'progress') return resolve(reply);
      try {
        onProgress?.(reply.event);
      } catch (error) {
        const thrown = error as Error;
        reject(thrown);
      }
    });
  });
}
