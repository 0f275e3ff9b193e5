/** The thread that computes an engine's steps; see protocol.ts. */
import { parentPort, receiveMessageOnPort, workerData } from 'node:worker_threads';
import { getBackend } from '../backend';
import type { KvCache } from '../kv-cache/kv-cache';
import { openCheckpoint, type Checkpoint } from '../model/checkpoint';
import { loadWeights, modelDigest } from '../model/weight-cache';
import { packError } from '../model/worker-protocol';
import { EngineCore } from './core';
import {
  clock,
  type EngineSetup,
  type FromWorker,
  type ToWorker,
  type WireRequest,
  type WorkerStats,
} from './protocol';
import { startSpeculation } from './start-speculation';
import { StoreTier } from './store-tier';

if (parentPort === null) throw new Error('This module runs in a worker thread only');
const port = parentPort;

/** Milliseconds between figures while nothing ends. */
const STATS_EVERY = 50;
/** And while nothing is computed. */
const IDLE_STATS_EVERY = 500;

function send(message: FromWorker): void {
  port.postMessage(message);
}

/** Steps while there is something to compute, and hears between any two of them. */
class StepLoop {
  private looping = false;
  private saidAt = 0;
  /** Requests whose prefixes are being looked for in the store. */
  private readonly fetching = new Set<number>();

  constructor(
    private readonly core: EngineCore,
    private readonly tier: StoreTier | null,
  ) {
    if (tier !== null) {
      // What is told while nothing is computed: whether the store is there.
      setInterval(() => this.looping || this.tell(), IDLE_STATS_EVERY).unref();
    }
    port.on('message', (message: ToWorker) => {
      this.hear(message);
      this.start();
    });
  }

  stats(): WorkerStats {
    return { ...this.core.stats(), store: this.tier?.stats() ?? null };
  }

  private start(): void {
    if (this.looping) return;
    this.looping = true;
    setImmediate(() => this.turn());
  }

  /** One step; then whatever else this thread has to do, such as hearing of a store, has its turn. */
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
        return this.submit(message.request);
      case 'cancel':
        this.fetching.delete(message.id);
        return core.cancel(message.id);
      case 'read':
        return core.read(message.id, message.tokens);
    }
  }

  private submit(request: WireRequest): void {
    const { core, tier, fetching } = this;
    if (tier?.mayKnow(request.prompt) !== true) return core.submit(request);
    fetching.add(request.id);
    void tier.fetch(request.prompt).then(() => {
      if (!fetching.delete(request.id)) return;
      core.submit(request);
      this.start();
    });
  }

  private tell(): void {
    const { tokens, ended } = this.core.takeNews();
    const now = clock();
    const due = ended.length > 0 || !this.looping || now - this.saidAt > STATS_EVERY;
    if (due) this.saidAt = now;
    if (tokens.length === 0 && !due) return;
    send({ type: 'step', at: now, tokens, ended, stats: due ? this.stats() : null });
  }
}

/** @throws GqaError as loadModel */
function start(setup: EngineSetup): void {
  const { contextLength, maxSequences, budgetTokens, stepTokens, store } = setup;
  const checkpoint = openCheckpoint(setup.path);
  try {
    const { model, weights } = loadWeights(checkpoint, setup.precision, setup.weightCache);
    const cache = model.createCache({
      ...setup.cache,
      capacity: contextLength,
      sequences: maxSequences,
      budgetTokens,
    });
    const tier = store === null ? null : new StoreTier(cache, store, identity(checkpoint, cache));
    const core = new EngineCore(model, cache, {
      maxSequences,
      stepTokens: Math.min(stepTokens, model.maxStepTokens),
      budgetTokens,
      speculator: startSpeculation(setup, model.config, cache),
      tier,
    });
    const loop = new StepLoop(core, tier);
    const facts = { backend: getBackend().info, bytes: model.bytes, weights };
    send({ type: 'ready', facts, stats: loop.stats() });
  } finally {
    checkpoint.weights.close();
  }
}

/** Blocks are exchanged between engines for which this is the same text. */
function identity(checkpoint: Checkpoint, cache: KvCache): string {
  const { precision } = workerData as EngineSetup;
  return [modelDigest(checkpoint), cache.prefixLayout, precision].join();
}

try {
  start(workerData as EngineSetup);
} catch (error) {
  send({ type: 'start-failed', error: packError(error) });
}
