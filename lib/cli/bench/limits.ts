/**
 * What this machine can do right now: bytes a second that the threads in use can read from memory, and multiply-adds a
 * second that they can do, by FMA, by dot products and by AMX tiles. All wander with whatever else the host does, so they
 * are measured again and again between the timings they are compared with.
 */
import { readFileSync, readdirSync } from 'node:fs';
import { join } from 'node:path';
import type { Backend } from '../../backend/contract';
import type { MachineLimits } from './roofline';
import { spread } from './statistics';

/** At least this much is read, and rotated through by the cases, so that none of it stays in a cache. */
const COLD_BYTES = 300e6;
/** How many last-level caches that must be. */
const COLD_CACHES = 4;
/** The read probe goes through its buffer so many times; the best pass counts. */
const READ_PASSES = 3;
/** A pass is timed in parts of this size a thread, its speed is their median: about as long as the cases' samples. */
const READ_PART_BYTES = 32e6;
/** Each kind of multiply-add is timed so many times, each about so long; the best counts. Tiles change their speed. */
const PASSES = { fma: 8, bf16: 3, int8: 3, tiles: 8 } as const;
const PASS_SECONDS = 2e-3;
/**
 * AMX on a shared core is at times, for milliseconds to seconds, four times slower than at others. A pass below this
 * share of the best one was in that state.
 */
const SLOW_TILES = 0.5;

/** All last-level caches together, from Linux's sysfs; 0 where it is not told. */
function lastLevelCacheBytes(): number {
  const cpus = '/sys/devices/system/cpu';
  const caches = new Map<string, number>();
  try {
    for (const cpu of readdirSync(cpus).filter((name) => /^cpu\d+$/.test(name))) {
      const folder = join(cpus, cpu, 'cache');
      const last = readdirSync(folder)
        .filter((name) => /^index\d+$/.test(name))
        .sort()
        .at(-1)!;
      const read = (file: string) => readFileSync(join(folder, last, file), 'utf8').trim();
      caches.set(read('shared_cpu_list'), parseInt(read('size'), 10) * 1024);
    }
  } catch {
    // Not Linux, or a container that hides sysfs: COLD_BYTES alone decides.
    return 0;
  }
  return [...caches.values()].reduce((a, b) => a + b, 0);
}

/** Bytes to go through before touching the same ones again. */
function coldBytes(): number {
  return Math.max(COLD_BYTES, COLD_CACHES * lastLevelCacheBytes());
}

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
  private readonly buffer: Uint8Array;
  /** Multiply-adds of each kind; returns the FLOP done, 0 where there is no such instruction. */
  private readonly kinds: Readonly<Record<Arithmetic, (iterations: number) => number>>;
  private readonly iterations: Record<Arithmetic, number>;
  private tileRates: number[] = [];
  private fastestTiles = 0;

  constructor(private readonly backend: Backend) {
    // Written, not only reserved: untouched pages all map to one page of zeros.
    this.buffer = new Uint8Array(coldBytes()).fill(1);
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
    let read = 0;
    for (let pass = 0; pass < READ_PASSES; pass++) read = Math.max(read, this.readPass());
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

  /** Bytes a second over the whole buffer. */
  private readPass(): number {
    const { buffer, backend } = this;
    const parts = Math.ceil(buffer.byteLength / (READ_PART_BYTES * backend.info.threads));
    const partBytes = Math.floor(buffer.byteLength / parts);
    const speeds = Array.from({ length: parts }, (_, part) => {
      const bytes = buffer.subarray(part * partBytes, (part + 1) * partBytes);
      return partBytes / timed(() => backend.probeRead(bytes));
    });
    return spread(speeds).median;
  }
}
