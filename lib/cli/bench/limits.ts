/**
 * What this machine can do right now: bytes a second that the threads in use can read from memory, and multiply-adds a
 * second that they can do, by FMA, by dot products and by AMX tiles. All wander with whatever else the host does, so they
 * are measured again and again between the timings they are compared with.
 */
import type { Backend } from '../../backend/contract';
import { coldBytes, ReadProbe } from '../../toolkit/read-probe';
import type { MachineLimits } from './roofline';

/** Each kind of multiply-add is timed so many times, each about so long; the best counts. Tiles change their speed. */
const PASSES = { fma: 8, bf16: 3, int8: 3, tiles: 8 } as const;
const PASS_SECONDS = 2e-3;
/**
 * AMX on a shared core is at times, for milliseconds to seconds, four times slower than at others. A pass below this
 * share of the best one was in that state.
 */
const SLOW_TILES = 0.5;

/** Each layer, and each packed weight, is a mapping of its own, and systems allow some 65,000 of them. */
const MAX_COPIES = 4096;

/** Copies of something of so many bytes that a rotation through them is cold; tiny ones stay in the caches. */
export function coldCopies(bytes: number): number {
  return Math.min(MAX_COPIES, Math.ceil(coldBytes() / bytes));
}

export function now(): number {
  return performance.now() / 1e3;
}

function timed(body: () => void): number {
  const start = now();
  body();
  return now() - start;
}

/** The higher of each limit. */
export function best(a: MachineLimits, b: MachineLimits): MachineLimits {
  const higher = (key: keyof MachineLimits) => Math.max(a[key], b[key]);
  return {
    ...{ read: higher('read'), fma: higher('fma'), tiles: higher('tiles') },
    ...{ bf16: higher('bf16'), int8: higher('int8') },
  };
}

/** Share of AMX passes in the slow state; null without passes. */
export function slowShare(tileRates: readonly number[], fastest: number): number | null {
  if (tileRates.length === 0) return null;
  return tileRates.filter((rate) => rate < SLOW_TILES * fastest).length / tileRates.length;
}

type Arithmetic = Exclude<keyof MachineLimits, 'read'>;

export class LimitProbe {
  private readonly reading: ReadProbe;
  /** Multiply-adds of each kind; returns the FLOP done, 0 where there is no such instruction. */
  private readonly kinds: Readonly<Record<Arithmetic, (iterations: number) => number>>;
  private readonly iterations: Record<Arithmetic, number>;
  private tileRates: number[] = [];
  private fastestTiles = 0;

  constructor(backend: Backend) {
    this.reading = new ReadProbe(backend);
    this.kinds = {
      fma: (iterations) => backend.probeFma(iterations),
      bf16: (iterations) => backend.probeDot('bf16', iterations),
      int8: (iterations) => backend.probeDot('int8', iterations),
      tiles: (iterations) => backend.probeTiles(iterations),
    };
    const count = (kind: Arithmetic) => this.iterationsFor(this.kinds[kind]);
    this.iterations = {
      ...{ fma: count('fma'), bf16: count('bf16'), int8: count('int8'), tiles: count('tiles') },
    };
  }

  /** All limits with the threads in use now. */
  measure(): MachineLimits {
    const read = this.reading.measure();
    const tileRates = this.rates('tiles');
    this.tileRates.push(...tileRates);
    const tiles = Math.max(...tileRates, 0);
    this.fastestTiles = Math.max(this.fastestTiles, tiles);
    const peak = (kind: Arithmetic) => Math.max(...this.rates(kind), 0);
    return { read, fma: peak('fma'), bf16: peak('bf16'), int8: peak('int8'), tiles };
  }

  /** Share of the AMX passes since the last call that found it slow; null on machines without. */
  takeSlowShare(): number | null {
    const share = slowShare(this.tileRates, this.fastestTiles);
    this.tileRates = [];
    return share;
  }

  /** FLOP a second of each pass; none where there is no such instruction. */
  private rates(kind: Arithmetic): number[] {
    const iterations = this.iterations[kind];
    if (iterations === 0) return [];
    return Array.from({ length: PASSES[kind] }, () => {
      let flop = 0;
      const seconds = timed(() => (flop = this.kinds[kind](iterations)));
      return flop / seconds;
    });
  }

  /** So many that a pass takes long enough; 0 where nothing is done. */
  private iterationsFor(run: (iterations: number) => number): number {
    let iterations = 1000;
    if (run(iterations) === 0) return 0;
    while (timed(() => run(iterations)) < PASS_SECONDS) iterations *= 2;
    return iterations;
  }
}
