/** The thread in which a task of the toolkit runs; see task.ts. */
import { parentPort, workerData } from 'node:worker_threads';
import { packError } from '../model/worker-protocol';
import type { TaskContext, TaskReply, TaskSetup } from './task';
import { tasks } from './tasks';

if (parentPort === null) throw new Error('This module runs in a worker thread only');
const port = parentPort;
const { kind, options, cancel } = workerData as TaskSetup;
const flag = new Int32Array(cancel);

/** Unwinds a task that nobody waits for any more. */
class Cancelled extends Error {}

const context: TaskContext = {
  progress: (event) => send({ type: 'progress', event }),
  cancelled: () => Atomics.load(flag, 0) !== 0,
  throwIfCancelled: () => {
    if (context.cancelled()) throw new Cancelled();
  },
};

function send(reply: TaskReply): void {
  port.postMessage(reply);
}

try {
  const run = tasks[kind] as (options: unknown, context: TaskContext) => unknown;
  send({ type: 'done', result: run(options, context) });
} catch (error) {
  send(
    error instanceof Cancelled
      ? { type: 'cancelled' }
      : { type: 'failed', error: packError(error) },
  );
}
