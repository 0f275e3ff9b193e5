/**
 * SHA-256 of a model file's contents, computed once and then remembered under what the system says of the file: path,
 * device, inode, size and the times of change of its contents and of itself, in nanoseconds. A file that changes gets
 * other times, unless that happens within the resolution of the system's clock: so a hash is remembered only of a file
 * that had last changed a while before it was read.
 */
import { createHash } from 'node:crypto';
import {
  closeSync,
  fstatSync,
  openSync,
  readFileSync,
  readSync,
  realpathSync,
  type BigIntStats,
} from 'node:fs';
import { join } from 'node:path';
import { writeAtomically } from '../../format/atomic-output';
import { writeWholeFile } from '../../format/output-file';
import { HASH_EXTENSION, markUsed } from './folder';

/** Longer than the coarsest clock of a file system in use (FAT: two seconds). */
const SETTLED_NS = 3_000_000_000n;
const READ_BYTES = 2 ** 22;

/** 64 hexadecimal digits; remembered in `folder` where that can be written. Throws as node:fs. */
export function fileHash(path: string, folder: string): string {
  const real = realpathSync(path);
  const memory = join(folder, digest(real).slice(0, 32) + HASH_EXTENSION);
  const fd = openSync(real, 'r');
  try {
    const before = fstatSync(fd, { bigint: true });
    const identity = identityOf(real, before);
    const known = recall(memory, identity);
    if (known !== null) {
      markUsed(memory);
      return known;
    }
    const startedNs = BigInt(Date.now()) * 1_000_000n;
    const hash = hashContents(fd);
    const same = identityOf(real, fstatSync(fd, { bigint: true })) === identity;
    if (same && isSettled(before, startedNs)) remember(memory, identity, hash);
    return hash;
  } finally {
    closeSync(fd);
  }
}

function digest(text: string): string {
  return createHash('sha256').update(text).digest('hex');
}

function identityOf(path: string, stats: BigIntStats): string {
  const { dev, ino, size, mtimeNs, ctimeNs } = stats;
  return [path, dev, ino, size, mtimeNs, ctimeNs].join('|');
}

function isSettled({ mtimeNs, ctimeNs }: BigIntStats, startedNs: bigint): boolean {
  return mtimeNs < startedNs - SETTLED_NS && ctimeNs < startedNs - SETTLED_NS;
}

function hashContents(fd: number): string {
  const hash = createHash('sha256');
  const buffer = Buffer.alloc(READ_BYTES);
  for (let at = 0, got; ; at += got) {
    got = readSync(fd, buffer, 0, buffer.length, at);
    if (got === 0) return hash.digest('hex');
    hash.update(buffer.subarray(0, got));
  }
}

/** A damaged memory gives no hash, or one of no file: then weights are packed anew. */
function recall(memory: string, identity: string): string | null {
  try {
    const [hash, known] = readFileSync(memory, 'utf8').split('\n');
    return known === identity ? hash : null;
  } catch {
    return null;
  }
}

function remember(memory: string, identity: string, hash: string): void {
  try {
    writeAtomically(memory, { kind: 'file', overwrite: true }, (partial) =>
      writeWholeFile(partial, `${hash}\n${identity}\n`),
    );
  } catch {
    // Then the file is read again next time; whoever writes the weights will say why.
  }
}
