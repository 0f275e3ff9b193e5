/** The thread that holds a model's weights and KV cache and does all its arithmetic; see worker-protocol.ts. */
import { parentPort, workerData } from 'node:worker_threads';
import { getBackend } from '../backend';
import { openCheckpoint } from './checkpoint';
import { Runner } from './runner';
import { loadWeights } from './weight-cache';
import {
  packError,
  type Job,
  type JobResults,
  type Reply,
  type Request,
  type WorkerSetup,
} from './worker-protocol';

if (parentPort === null) throw new Error('This module runs in a worker thread only');
const port = parentPort;

function send(reply: Reply, transfer: ArrayBuffer[] = []): void {
  port.postMessage(reply, transfer);
}

function start(): Runner {
  const { path, contextLength, cache, precision, weightCache } = workerData as WorkerSetup;
  const checkpoint = openCheckpoint(path);
  try {
    const { model, weights } = loadWeights(checkpoint, precision, weightCache);
    send({ type: 'ready', backend: getBackend().info, bytes: model.bytes, weights });
    return new Runner(model, contextLength, cache);
  } finally {
    checkpoint.weights.close();
  }
}

function serve(runner: Runner, { id, job, cancel }: Request): void {
  const flag = new Int32Array(cancel);
  const cancelled = (): boolean => Atomics.load(flag, 0) !== 0;
  try {
    send({ type: 'started', id, at: performance.now() });
    const result = run(runner, job, cancelled, (token) =>
      send({ type: 'token', id, token, at: performance.now() }),
    );
    const transfer = result instanceof Float32Array ? [result.buffer as ArrayBuffer] : [];
    send({ type: 'done', id, result }, transfer);
  } catch (error) {
    send({ type: 'failed', id, error: packError(error) });
  }
}

function run(
  runner: Runner,
  job: Job,
  cancelled: () => boolean,
  emit: (token: number) => void,
): JobResults[Job['kind']] {
  switch (job.kind) {
    case 'generate':
      return runner.generate(job.job, cancelled, emit);
    case 'logits':
      return runner.logits(job.ids, cancelled);
    case 'score':
      return runner.score(job.ids, cancelled);
    case 'compare':
      return runner.compare(job.ids, job.caches, cancelled);
  }
}

try {
  const runner = start();
  port.on('message', (request: Request) => serve(runner, request));
} catch (error) {
  send({ type: 'start-failed', error: packError(error) });
}
