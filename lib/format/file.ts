/**
 * Positioned reads of a local file. Nothing is read or allocated beyond the file's own size, so a header that lies
 * about lengths costs nothing; offsets are doubles below 2^53, so files beyond 4 GiB are fine.
 */
import { closeSync, fstatSync, openSync, readFileSync, readSync, statSync } from 'node:fs';
import type { BlockDType, FloatData, FloatDType } from '../core/dtype';
import { GqaError } from '../core/errors';

/** A tensor taken from a file, dequantised where it was stored quantised (then dtype is 'f32'). */
export interface LoadedTensor {
  /** Row-major: the last dimension is contiguous. */
  shape: readonly number[];
  dtype: FloatDType;
  data: FloatData;
}

/** The same, or GGUF's blocks as bytes. */
export type StoredTensor = LoadedTensor | BlockTensor;

export interface BlockTensor {
  shape: readonly number[];
  dtype: BlockDType;
  data: Uint8Array;
}

/** One readSync moves at most this much: its length argument is a 32-bit integer. */
const MAX_READ_BYTES = 2 ** 30;
const MAX_MESSAGE_CHARS = 200;

export class BinaryFile {
  /** Bytes in the file when it was opened. */
  readonly size: number;
  private fd: number;

  /** @throws GqaError INVALID_FILE where path is no readable regular file. */
  constructor(readonly path: string) {
    checkRegular(path);
    try {
      this.fd = openSync(path, 'r');
    } catch (cause) {
      throw unreadable(path, cause);
    }
    this.size = fstatSync(this.fd).size;
  }

  /** Fills target from the bytes at offset. @throws GqaError INVALID_FILE where the file ends before. */
  readInto(target: Uint8Array, offset: number): void {
    if (!Number.isSafeInteger(offset) || offset < 0 || offset + target.length > this.size) {
      throw invalidFile(this.path, `${target.length} bytes at ${offset}`, `${this.size} bytes`);
    }
    for (let done = 0; done < target.length;) {
      const length = Math.min(target.length - done, MAX_READ_BYTES);
      const got = this.readSome(target.subarray(done, done + length), offset + done);
      if (got === 0) throw invalidFile(this.path, 'a file that keeps its size', 'a shorter file');
      done += got;
    }
  }

  /** Safe to call twice. */
  close(): void {
    if (this.fd < 0) return;
    closeSync(this.fd);
    this.fd = -1;
  }

  private readSome(target: Uint8Array, position: number): number {
    try {
      return readSync(this.fd, target, 0, target.length, position);
    } catch (cause) {
      throw unreadable(this.path, cause);
    }
  }
}

/** The file parsed as JSON. @throws GqaError INVALID_FILE where it is larger than maxBytes or no JSON. */
export function readJsonFile(path: string, maxBytes: number): unknown {
  const text = readTextFile(path, maxBytes);
  try {
    return JSON.parse(text);
  } catch (cause) {
    throw new GqaError('INVALID_FILE', `${path}: ${(cause as Error).message}`, {
      argument: path,
      expected: 'JSON',
      received: 'text that is no JSON',
      cause,
    });
  }
}

/** The file as UTF-8 text. @throws GqaError INVALID_FILE where it is larger than maxBytes or cannot be read. */
export function readTextFile(path: string, maxBytes: number): string {
  const size = checkRegular(path);
  if (size > maxBytes) throw invalidFile(path, `at most ${maxBytes} bytes`, `${size} bytes`);
  try {
    return readFileSync(path, 'utf8');
  } catch (cause) {
    throw unreadable(path, cause);
  }
}

/** "FILE: expected X but found Y"; both are cut short, for a hostile file may have names of any length. */
export function invalidFile(path: string, expects: string, finds: string): GqaError {
  const expected = expects.slice(0, MAX_MESSAGE_CHARS);
  const received = finds.slice(0, MAX_MESSAGE_CHARS);
  return new GqaError('INVALID_FILE', `${path}: expected ${expected} but found ${received}`, {
    argument: path,
    expected,
    received,
  });
}

/** Elements of a shape. @throws GqaError INVALID_FILE beyond 2^53. */
export function elementCount(path: string, name: string, shape: readonly number[]): number {
  let count = 1;
  for (const size of shape) {
    if (!Number.isSafeInteger(size) || size < 0) {
      throw invalidFile(path, `sizes of ${name} that are counts`, String(size));
    }
    count *= size;
    if (!Number.isSafeInteger(count)) {
      throw invalidFile(path, `fewer than 2^53 elements in ${name}`, `[${shape.join()}]`);
    }
  }
  return count;
}

/** Runs an allocation of about `bytes` bytes. @throws GqaError OUT_OF_MEMORY where it cannot be had. */
export function allocate<T>(what: string, bytes: number, make: () => T): T {
  try {
    return make();
  } catch (cause) {
    throw new GqaError('OUT_OF_MEMORY', `No memory for ${bytes} bytes of ${what}`, {
      argument: what,
      expected: `${bytes} free bytes`,
      cause,
    });
  }
}

/** A span of bytes that a header promises. */
export interface Span {
  name: string;
  begin: number;
  bytes: number;
}

/** @throws GqaError INVALID_FILE where a span leaves the file or shares bytes with another. */
export function checkSpans(path: string, spans: readonly Span[], fileBytes: number): void {
  const ordered = spans.filter((span) => span.bytes > 0).sort((a, b) => a.begin - b.begin);
  let end = 0;
  for (const span of ordered) {
    if (span.begin < end) {
      throw invalidFile(path, 'tensors that do not overlap', `${span.name} at ${span.begin}`);
    }
    end = span.begin + span.bytes;
    if (end > fileBytes) {
      throw invalidFile(path, `${span.name} to end within ${fileBytes} bytes`, `its end at ${end}`);
    }
  }
}

/** The file's size. Checked before opening: opening a pipe would wait for its writer. */
function checkRegular(path: string): number {
  let stats;
  try {
    stats = statSync(path);
  } catch (cause) {
    throw unreadable(path, cause);
  }
  if (!stats.isFile()) throw invalidFile(path, 'a regular file', 'something else');
  return stats.size;
}

function unreadable(path: string, cause: unknown): GqaError {
  const reason = (cause as NodeJS.ErrnoException).code ?? String(cause);
  return new GqaError('INVALID_FILE', `Cannot read ${path}: ${reason}`, {
    argument: path,
    expected: 'a readable file',
    received: reason,
    cause,
  });
}
