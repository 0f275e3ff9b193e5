/** A fleet of replicas that answers a trace: what it finds in its caches, how even its load is, how long a first token takes. */
import { ChainCache } from './chain-cache';
import type { Fleet, Router } from './routing';
import { BLOCK } from './trace';
import type { Request } from './trace';

export interface ReplicaModel {
  /** Blocks that a replica keeps of prefixes. */
  cacheBlocks: number;
  /** Prompt tokens a second. */
  promptRate: number;
  /** Output tokens a second of all its sequences together, and of one. */
  outputRate: number;
  sequenceRate: number;
  /** Seconds to fetch a block from the store and take it in. */
  fetchSeconds: number;
}

/** Roughly SmolLM2-135M on two cores; see docs/deployment.md. */
export const REPLICA: ReplicaModel = {
  cacheBlocks: 1024,
  promptRate: 800,
  outputRate: 240,
  sequenceRate: 40,
  fetchSeconds: 0.004,
};
/** Blocks of the shared store for each replica. */
export const STORE_BLOCKS = 4096;
/** Of the requests, the part after which caches are taken for warm, and after which a replica is lost. */
const WARM = 1 / 3;
const LOSS = 2 / 3;

export interface Outcome {
  /** Prompt blocks found in the replica's cache, or only in the store, of all. */
  cacheHits: number;
  storeHits: number;
  /** Blocks that a request fetches from the store, on average. */
  fetched: number;
  /** Seconds of work of the busiest replica, of the mean. */
  spread: number;
  /** Mean part of the time that a replica works. */
  utilisation: number;
  /** Seconds to the first token. */
  median: number;
  p99: number;
  /** Prompt tokens computed. */
  computedTokens: number;
  /** Requests that a lost replica had in flight. */
  failed: number;
}

interface Flight {
  end: number;
  replica: number;
  request: Request;
}

export interface Scenario {
  replicas: number;
  router: Router;
  /** Whether there is a shared store. */
  store: boolean;
  /** Whether the busiest replica is lost after two thirds of the requests. */
  loss?: boolean;
  model?: ReplicaModel;
}

export function simulate(trace: readonly Request[], scenario: Scenario): Outcome {
  return new Simulation(trace.length, scenario).run(trace);
}

class Simulation implements Fleet {
  readonly active: Int32Array;
  totalActive = 0;
  readonly alive: Uint8Array;
  living: number;
  private readonly caches: ChainCache[];
  private readonly store: ChainCache | null;
  private readonly busyUntil: Float64Array;
  private readonly work: Float64Array;
  private readonly flights = new Flights();
  private readonly firstTokens: number[] = [];
  private readonly model: ReplicaModel;
  private counted = { blocks: 0, cacheHits: 0, storeHits: 0, computed: 0 };
  private failed = 0;

  constructor(
    private readonly requests: number,
    private readonly scenario: Scenario,
  ) {
    const { replicas, store, model = REPLICA } = scenario;
    this.model = model;
    this.active = new Int32Array(replicas);
    this.alive = new Uint8Array(replicas).fill(1);
    this.living = replicas;
    this.caches = Array.from({ length: replicas }, () => new ChainCache(model.cacheBlocks));
    this.store = store ? new ChainCache(STORE_BLOCKS * replicas) : null;
    this.busyUntil = new Float64Array(replicas);
    this.work = new Float64Array(replicas);
  }

  run(trace: readonly Request[]): Outcome {
    const warm = Math.floor(this.requests * WARM);
    const loss = this.scenario.loss === true ? Math.floor(this.requests * LOSS) : -1;
    trace.forEach((request, i) => {
      if (i === warm) this.startCounting();
      this.land(request.time);
      if (i === loss) this.lose(request.time);
      this.serve(request, request.time);
    });
    return this.outcome(trace[this.requests - 1].time - trace[warm].time);
  }

  private startCounting(): void {
    this.work.fill(0);
    this.firstTokens.length = 0;
    this.counted = { blocks: 0, cacheHits: 0, storeHits: 0, computed: 0 };
  }

  private serve(request: Request, now: number): void {
    const { model, store, counted } = this;
    const replica = this.scenario.router.pick(request, this);
    const cache = this.caches[replica];
    const blocks = request.commonBlocks + request.ownBlocks;
    const held = cache.find(request);
    const fetched = Math.max(0, (store?.find(request) ?? 0) - held);
    const computed = (blocks - held - fetched) * BLOCK + request.restTokens;
    cache.add(request);
    store?.add(request);
    counted.blocks += blocks;
    counted.cacheHits += held;
    counted.storeHits += fetched;
    counted.computed += computed;
    const prompt = computed / model.promptRate + fetched * model.fetchSeconds;
    const work = prompt + request.outputTokens / model.outputRate;
    const begin = Math.max(now, this.busyUntil[replica]);
    this.busyUntil[replica] = begin + work;
    this.work[replica] += work;
    this.firstTokens.push(begin + prompt - request.time);
    this.active[replica]++;
    this.totalActive++;
    const end = begin + prompt + request.outputTokens / model.sequenceRate;
    this.flights.push({ end, replica, request });
  }

  /** Requests that have been answered by now. */
  private land(now: number): void {
    for (let next = this.flights.next; next !== undefined && next.end <= now;) {
      this.flights.pop();
      this.active[next.replica]--;
      this.totalActive--;
      next = this.flights.next;
    }
  }

  /** The busiest replica is gone, and what it had in flight is asked again. */
  private lose(now: number): void {
    const lost = this.work.indexOf(Math.max(...this.work));
    this.alive[lost] = 0;
    this.living--;
    const flights = this.flights.takeOf(lost);
    this.totalActive -= flights.length;
    this.active[lost] = 0;
    this.failed = flights.length;
    for (const { request } of flights) this.serve(request, now);
  }

  private outcome(seconds: number): Outcome {
    const { counted, work, firstTokens } = this;
    const sorted = Float64Array.from(firstTokens).sort();
    const mean = work.reduce((sum, seconds) => sum + seconds, 0) / this.living;
    return {
      cacheHits: counted.cacheHits / counted.blocks,
      storeHits: counted.storeHits / counted.blocks,
      fetched: counted.storeHits / firstTokens.length,
      spread: Math.max(...work) / mean,
      utilisation: mean / seconds,
      median: sorted[Math.floor(sorted.length * 0.5)],
      p99: sorted[Math.floor(sorted.length * 0.99)],
      computedTokens: counted.computed,
      failed: this.failed,
    };
  }
}

/** A heap of what is under way, the first to end on top. */
class Flights {
  private heap: Flight[] = [];

  get next(): Flight | undefined {
    return this.heap[0];
  }

  push(flight: Flight): void {
    const { heap } = this;
    let at = heap.push(flight) - 1;
    while (at > 0) {
      const above = (at - 1) >> 1;
      if (heap[above].end <= flight.end) break;
      heap[at] = heap[above];
      at = above;
    }
    heap[at] = flight;
  }

  pop(): void {
    const { heap } = this;
    const last = heap.pop()!;
    if (heap.length === 0) return;
    let at = 0;
    for (;;) {
      let below = 2 * at + 1;
      if (below + 1 < heap.length && heap[below + 1].end < heap[below].end) below++;
      if (below >= heap.length || last.end <= heap[below].end) break;
      heap[at] = heap[below];
      at = below;
    }
    heap[at] = last;
  }

  /** Takes out those of a replica. */
  takeOf(replica: number): Flight[] {
    const taken = this.heap.filter((flight) => flight.replica === replica);
    const left = this.heap.filter((flight) => flight.replica !== replica);
    this.heap = [];
    for (const flight of left) this.push(flight);
    return taken;
  }
}
