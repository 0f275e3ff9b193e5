/** Snapshots to and from files and streams, a block at a time: what is in memory is about one block. */
import { isUint8Array } from 'node:util/types';
import { createReadStream } from 'node:fs';
import { pipeline } from 'node:stream/promises';
import { expectedError } from '../../core/errors';
import { allocate, describe } from '../../core/validate';
import { END, planSnapshot, readSnapshot, writeChunks } from './codec';
import type { Plan, Reading } from './codec';
import { replaceFile } from './file-store';
import type { SnapshotSource, SnapshotTarget } from './contents';
import { requireName, storing } from './store';

/** @returns Bytes written. @throws GqaError STORE_FAILED, INVALID_ARGUMENT, OUT_OF_RANGE, OUT_OF_MEMORY. */
export async function writeSnapshotTo(
  source: SnapshotSource,
  target: string | NodeJS.WritableStream,
): Promise<number> {
  const toFile = typeof target === 'string';
  if (toFile) requireName(target, 'target');
  else if (typeof (target as NodeJS.WritableStream | null)?.write !== 'function') {
    const expected = 'a path or a writable stream';
    throw expectedError('INVALID_ARGUMENT', 'target', expected, describe(target));
  }
  const plan = planSnapshot(source);
  await storing('target', 'writing', () =>
    toFile
      ? replaceFile(target, (put) => putAll(plan, put))
      : pipeline(writeChunks(plan, take), target),
  );
  return plan.bytes;
}

/** Memory of its own for every chunk: a stream may keep what it was given. */
function take(bytes: number): Uint8Array {
  return allocate(() => new Uint8Array(bytes), bytes, 'sequence');
}

async function putAll(plan: Plan, put: (bytes: Uint8Array) => Promise<void>): Promise<void> {
  for (const chunk of writeChunks(plan, take)) await put(chunk);
}

/**
 * Reads the stream to its end; it holds the snapshot and nothing else.
 *
 * @throws GqaError INVALID_SNAPSHOT, SNAPSHOT_MISMATCH, STORE_FAILED, INVALID_ARGUMENT, CAPACITY_EXCEEDED,
 *   OUT_OF_MEMORY, DISPOSED, BUSY.
 */
export async function restoreSnapshotFrom<T>(
  target: SnapshotTarget<T>,
  source: string | NodeJS.ReadableStream,
): Promise<T> {
  if (typeof source === 'string') requireName(source, 'source');
  else if (
    typeof (source as Partial<AsyncIterable<unknown>> | null)?.[Symbol.asyncIterator] !== 'function'
  ) {
    const expected = 'a path or a readable stream';
    throw expectedError('INVALID_ARGUMENT', 'source', expected, describe(source));
  }
  return storing('source', 'reading', () => {
    const stream = typeof source === 'string' ? createReadStream(source) : source;
    return readStream(readSnapshot(target), stream);
  });
}

/** Drives a reading over a stream; whatever happens, the reading ends, and with it what it holds. */
async function readStream<T>(reading: Reading<T>, stream: AsyncIterable<unknown>): Promise<T> {
  const chunks = new ByteChunks(stream);
  try {
    let step = reading.next(new Uint8Array(0));
    while (step.done !== true) {
      step = reading.next(await (step.value === END ? chunks.any() : chunks.next(step.value)));
    }
    return step.value;
  } finally {
    // The result is of no use to anybody: this runs what the reading has in its own `finally`.
    reading.return(undefined as never);
    await chunks.close();
  }
}

/** Spans of the lengths that are asked for, out of chunks of any length. */
class ByteChunks {
  private readonly chunks: AsyncIterator<unknown>;
  private chunk: Uint8Array = new Uint8Array(0);

  constructor(stream: AsyncIterable<unknown>) {
    this.chunks = stream[Symbol.asyncIterator]();
  }

  /** The next `bytes` bytes, fewer at the end. */
  async next(bytes: number): Promise<Uint8Array> {
    if (this.chunk.length >= bytes) return this.cut(bytes);
    const span = allocate(() => new Uint8Array(bytes), bytes, 'source');
    let filled = 0;
    while (filled < bytes && (await this.refill())) {
      const part = this.cut(bytes - filled);
      span.set(part, filled);
      filled += part.length;
    }
    return span.subarray(0, filled);
  }

  /** Some bytes, or none at the end. */
  async any(): Promise<Uint8Array> {
    await this.refill();
    return this.chunk;
  }

  /** Lets go of the stream, if it has not ended. */
  async close(): Promise<void> {
    await this.chunks.return?.();
  }

  private cut(bytes: number): Uint8Array {
    const part = this.chunk.subarray(0, bytes);
    this.chunk = this.chunk.subarray(part.length);
    return part;
  }

  /** Whether there is a byte to be had. */
  private async refill(): Promise<boolean> {
    while (this.chunk.length === 0) {
      const step = (await this.chunks.next()) as IteratorResult<unknown, unknown>;
      if (step.done === true) return false;
      const { value } = step;
      if (!isUint8Array(value)) {
        throw expectedError(
          'INVALID_ARGUMENT',
          'source',
          'a stream of bytes',
          `one of ${describe(value)}`,
        );
      }
      this.chunk = value;
    }
    return true;
  }
}
