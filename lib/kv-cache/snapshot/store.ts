/** Where snapshots are saved block by block: a table of bytes by key, which may be far away and may fail at any time. */
import { createHash } from 'node:crypto';
import { expectedError, GqaError } from '../../core/errors';
import { describe } from '../../core/validate';
import { invalidSnapshot } from './contents';

/**
 * What a store of blocks provides. Values are whole or not there: a put that was cut off leaves the old value, none, or
 * one that get refuses. Keys are any text. A rejected promise becomes STORE_FAILED with the reason as its cause.
 */
export interface BlockStore {
  /** The bytes of a key; null where it has none. */
  get(key: string): Promise<Uint8Array | null>;
  /** Keeps a copy of the bytes; they may change once the promise has settled. */
  put(key: string, bytes: Uint8Array): Promise<void>;
  has(key: string): Promise<boolean>;
  /** Does nothing where the key has no bytes. */
  delete(key: string): Promise<void>;
}

const METHODS = ['get', 'put', 'has', 'delete'] as const;

/** @throws GqaError INVALID_ARGUMENT */
export function requireStore(value: unknown): BlockStore {
  const store = value as BlockStore | null | undefined;
  if (METHODS.every((name) => typeof store?.[name] === 'function')) return store!;
  const expected = `a store with ${METHODS.join(', ')}`;
  throw expectedError('INVALID_ARGUMENT', 'store', expected, describe(value));
}

/** The name a sequence is saved under: any text that is not empty and that UTF-8 can express. */
export function requireName(value: unknown, argument: string): string {
  if (typeof value === 'string' && value !== '' && Buffer.from(value).toString() === value) {
    return value;
  }
  throw expectedError('INVALID_ARGUMENT', argument, 'text that is not empty', describe(value));
}

/** What fails: one of these arguments, in doing something. */
type Failing = 'store' | 'source' | 'target';

/** Awaits what a store, file or stream does. @throws GqaError STORE_FAILED, or the GqaError it failed with. */
export async function storing<T>(
  argument: Failing,
  what: string,
  action: () => Promise<T>,
): Promise<T> {
  try {
    return await action();
  } catch (cause) {
    if (cause instanceof GqaError) throw cause;
    throw storeFailed(argument, what, cause);
  }
}

/** @param cause An error, or what came instead of an answer. */
export function storeFailed(argument: Failing, what: string, cause: unknown): GqaError {
  const expected = `${what} to succeed`;
  const received = cause instanceof Error ? `the error '${cause.message}'` : describe(cause);
  const message = `Expected ${expected} for ${argument} but received ${received}`;
  return new GqaError('STORE_FAILED', message, { argument, expected, received, cause });
}

// ---- values with their own checksum

const SEAL_BYTES = 32;

/** SHA-256 over the key's length and text, and the bytes: a value of another key is as wrong as a damaged one. */
function sealOf(key: string, bytes: Uint8Array): Buffer {
  const text = Buffer.from(key);
  const length = Buffer.alloc(4);
  length.writeUInt32LE(text.length);
  return createHash('sha256').update(length).update(text).update(bytes).digest();
}

/** The bytes behind their checksum, as the stores of this package keep them. */
export function seal(key: string, bytes: Uint8Array): Buffer {
  return Buffer.concat([sealOf(key, bytes), bytes]);
}

/** @throws GqaError INVALID_SNAPSHOT where this is not what was sealed for the key. */
export function unseal(key: string, sealed: Uint8Array): Uint8Array {
  const bytes = sealed.subarray(SEAL_BYTES);
  if (sealed.length < SEAL_BYTES || !sealOf(key, bytes).equals(sealed.subarray(0, SEAL_BYTES))) {
    throw invalidSnapshot(`the bytes that were put for ${key}`, `${sealed.length} damaged bytes`);
  }
  return bytes;
}
