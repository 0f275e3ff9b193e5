/** The thread that computes an engine's steps; see protocol.ts. */
import { parentPort, receiveMessageOnPort, workerData } from 'node:worker_threads';
import { getBackend } from '../backend';
import { openCheckpoint } from '../model/checkpoint';
import { loadWeights } from '../model/weight-cache';
import { packError } from '../model/worker-protocol';
import { EngineCore } from './core';
import { clock, type EngineSetup, type FromWorker, type ToWorker } from './protocol';

if (parentPort === null) throw new Error('This module runs in a worker thread only');
const port = parentPort;

/** Milliseconds between figures while nothing ends. */
const STATS_EVERY = 50;

function send(message: FromWorker): void {
  port.postMessage(message);
}

/** Steps while there is something to compute, and hears between any two of them. */
class StepLoop {
  private looping = false;
  private saidAt = 0;

  constructor(private readonly core: EngineCore) {
    port.on('message', (message: ToWorker) => {
      this.hear(message);
      this.start();
    });
  }

  private start(): void {
    if (this.looping) return;
    this.looping = true;
    setImmediate(() => this.turn());
  }

  /** One step; then whatever else this thread has to do, such as talking to a store, has its turn. */
  private turn(): void {
    for (let got = receiveMessageOnPort(port); got; got = receiveMessageOnPort(port)) {
      this.hear(got.message as ToWorker);
    }
    this.looping = this.core.step();
    this.tell();
    if (this.looping) setImmediate(() => this.turn());
  }

  private hear(message: ToWorker): void {
    const { core } = this;
    switch (message.type) {
      case 'submit':
        return core.submit(message.request);
      case 'cancel':
        return core.cancel(message.id);
      case 'read':
        return core.read(message.id, message.tokens);
    }
  }

  private tell(): void {
    const { tokens, ended } = this.core.takeNews();
    const now = clock();
    const due = ended.length > 0 || !this.looping || now - this.saidAt > STATS_EVERY;
    if (due) this.saidAt = now;
    if (tokens.length === 0 && !due) return;
    send({ type: 'step', at: now, tokens, ended, stats: due ? this.core.stats() : null });
  }
}

function start(): void {
  const setup = workerData as EngineSetup;
  const checkpoint = openCheckpoint(setup.path);
  try {
    const { model } = loadWeights(checkpoint, setup.precision, setup.weightCache);
    const { contextLength, maxSequences, stepTokens, budgetTokens } = setup;
    const cache = model.createCache({
      ...setup.cache,
      capacity: contextLength,
      sequences: maxSequences,
      budgetTokens,
    });
    const core = new EngineCore(model, cache, {
      maxSequences,
      stepTokens: Math.min(stepTokens, model.maxStepTokens),
      budgetTokens,
    });
    const facts = { backend: getBackend().info, bytes: model.bytes };
    send({ type: 'ready', facts, stats: core.stats() });
    new StepLoop(core);
  } finally {
    checkpoint.weights.close();
  }
}

try {
  start();
} catch (error) {
  send({ type: 'start-failed', error: packError(error) });
}
