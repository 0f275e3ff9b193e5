/** Snapshots taken apart and put together again, their checksums sound. */
import { createHash } from 'node:crypto';

export const PREFIX_BYTES = 16;
export const DIGEST_BYTES = 32;

export function sha256(...parts: Uint8Array[]): Buffer {
  const hash = createHash('sha256');
  for (const part of parts) hash.update(part);
  return hash.digest();
}

/** Bytes of the header, as the prefix says. */
function headerBytes(snapshot: Uint8Array): number {
  return Buffer.from(snapshot.buffer, snapshot.byteOffset).readUInt32LE(12);
}

export function headerOf(snapshot: Uint8Array): string {
  const end = PREFIX_BYTES + headerBytes(snapshot);
  return Buffer.from(snapshot).toString('utf8', PREFIX_BYTES, end);
}

/** Where the blocks begin. */
export function bodyAt(snapshot: Uint8Array): number {
  return PREFIX_BYTES + headerBytes(snapshot) + DIGEST_BYTES;
}

/** With another header. `claimed` is its length as the prefix says, where that is not the truth. */
export function withHeader(
  snapshot: Uint8Array,
  header: string | Uint8Array,
  claimed?: number,
): Buffer {
  const json = Buffer.from(header);
  const prefix = Buffer.from(snapshot.subarray(0, PREFIX_BYTES));
  prefix.writeUInt32LE(claimed ?? json.length, 12);
  const body = snapshot.subarray(bodyAt(snapshot), snapshot.length - DIGEST_BYTES);
  const all = Buffer.concat([prefix, json, sha256(prefix, json), body]);
  return Buffer.concat([all, sha256(all)]);
}

/** In place: the checksums of header and whole made sound again, as far as there is room for them. */
export function reseal(snapshot: Uint8Array): void {
  if (snapshot.length < PREFIX_BYTES + 2 * DIGEST_BYTES) return;
  const end = snapshot.length - DIGEST_BYTES;
  const body = bodyAt(snapshot);
  if (body <= end)
    snapshot.set(sha256(snapshot.subarray(0, body - DIGEST_BYTES)), body - DIGEST_BYTES);
  snapshot.set(sha256(snapshot.subarray(0, end)), end);
}
