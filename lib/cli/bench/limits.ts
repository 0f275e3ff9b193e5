/**
 * What this machine can do right now: bytes a second that the threads in use can read from memory, and f32
 * multiply-adds a second that they can do. Both wander with whatever else the host does, so they are measured again and
 * again between the timings they are compared with.
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
/** Multiply-adds are timed so many times, each about so long; the best counts. */
const FMA_PASSES = 8;
const FMA_SECONDS = 2e-3;

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
  return { read: Math.max(a.read, b.read), fma: Math.max(a.fma, b.fma) };
}

export class LimitProbe {
  private readonly buffer: Uint8Array;
  private iterations = 1000;

  constructor(private readonly backend: Backend) {
    // Written, not only reserved: untouched pages all map to one page of zeros.
    this.buffer = new Uint8Array(coldBytes()).fill(1);
    while (timed(() => backend.probeFma(this.iterations)) < FMA_SECONDS) this.iterations *= 2;
  }

  /** Both limits with the threads in use now. */
  measure(): MachineLimits {
    const limits = { read: 0, fma: 0 };
    for (let pass = 0; pass < READ_PASSES; pass++) {
      limits.read = Math.max(limits.read, this.readPass());
    }
    for (let pass = 0; pass < FMA_PASSES; pass++) {
      let flop = 0;
      const seconds = timed(() => (flop = this.backend.probeFma(this.iterations)));
      limits.fma = Math.max(limits.fma, flop / seconds);
    }
    return limits;
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
