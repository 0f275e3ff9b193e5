/** Bytes a second that the threads in use can read from memory, from nothing but memory. */
import type { Backend } from '../backend/contract';
import { cpuCaches } from './machine';
import { spread } from './statistics';

/** At least this much is read, and rotated through by whatever is timed, so that none of it stays in a cache. */
const COLD_BYTES = 300e6;
/** How many last-level caches that must be. */
const COLD_CACHES = 4;
/** The probe goes through its buffer so many times; the best pass counts. */
const PASSES = 3;
/** A pass is timed in parts of this size a thread, its speed is their median: about as long as a benchmark's samples. */
const PART_BYTES = 32e6;

/** Bytes to go through before touching the same ones again. */
export function coldBytes(): number {
  return Math.max(COLD_BYTES, COLD_CACHES * (cpuCaches().at(-1)?.bytes ?? 0));
}

export class ReadProbe {
  private readonly buffer: Uint8Array;

  constructor(private readonly backend: Backend) {
    // Written, not only reserved: untouched pages all map to one page of zeros.
    this.buffer = new Uint8Array(coldBytes()).fill(1);
  }

  /** Bytes a second, with the threads in use now. */
  measure(): number {
    return Math.max(...Array.from({ length: PASSES }, () => this.pass()));
  }

  private pass(): number {
    const { buffer, backend } = this;
    const parts = Math.ceil(buffer.byteLength / (PART_BYTES * backend.info.threads));
    const partBytes = Math.floor(buffer.byteLength / parts);
    const speeds = Array.from({ length: parts }, (_, part) => {
      const bytes = buffer.subarray(part * partBytes, (part + 1) * partBytes);
      const start = performance.now();
      backend.probeRead(bytes);
      return (partBytes / (performance.now() - start)) * 1e3;
    });
    return spread(speeds).median;
  }
}
