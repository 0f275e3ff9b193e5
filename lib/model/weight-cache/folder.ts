/**
 * The folder of packed weights: where it is, how large it may become, what goes first. Each file's time of change is that
 * of its last use. Files may be removed at any time, by anybody: who has mapped one keeps it.
 */
import { mkdirSync, readdirSync, rmSync, statfsSync, statSync, utimesSync } from 'node:fs';
import { homedir } from 'node:os';
import { join } from 'node:path';
import { expectedError, GqaError } from '../../core/errors';
import { writing } from '../../format/output-file';

const GIGABYTE = 1e9;
const DEFAULT_LIMIT_GB = 32;
/** What writing must leave free on the disk. */
const RESERVE_BYTES = GIGABYTE;
/** Half a file that is older was left by a process that was killed. */
const DEAD_AFTER_MS = 24 * 60 * 60 * 1000;
/** Names of files here: packed weights, remembered hashes. */
export const WEIGHTS_EXTENSION = '.weights';
export const HASH_EXTENSION = '.hash';

/** GQA_CACHE_DIR, else gqa in XDG_CACHE_HOME, else in ~/.cache. @throws GqaError WRITE_FAILED where there is no home */
export function defaultFolder(): string {
  const { GQA_CACHE_DIR, XDG_CACHE_HOME } = process.env;
  if (GQA_CACHE_DIR) return GQA_CACHE_DIR;
  return join(XDG_CACHE_HOME || writing('~', () => join(homedir(), '.cache')), 'gqa');
}

/** Bytes. @throws GqaError OUT_OF_RANGE */
export function cacheLimit(): number {
  const text = process.env.GQA_CACHE_LIMIT_GB;
  if (!text) return DEFAULT_LIMIT_GB * GIGABYTE;
  const gigabytes = Number(text);
  if (gigabytes >= 0) return gigabytes * GIGABYTE;
  throw expectedError('OUT_OF_RANGE', 'GQA_CACHE_LIMIT_GB', 'gigabytes, 0 or more', text);
}

/** Makes the folder, for this user alone, where it is not there. @throws GqaError WRITE_FAILED */
export function makeFolder(folder: string): void {
  writing(folder, () => mkdirSync(folder, { recursive: true, mode: 0o700 }));
}

/**
 * Makes room for a file of about `bytes`: the least recently used ones go.
 * @throws GqaError WRITE_FAILED where it would not fit the limit or the disk
 */
export function makeRoom(folder: string, bytes: number): void {
  const limit = cacheLimit();
  if (bytes > limit) {
    throw noRoom(folder, `at most ${limit / GIGABYTE} GB (GQA_CACHE_LIMIT_GB)`, bytes);
  }
  evict(folder, limit - bytes);
  const { bavail, bsize } = writing(folder, () => statfsSync(folder));
  const free = bavail * bsize - RESERVE_BYTES;
  if (bytes > free) throw noRoom(folder, `${Math.max(0, free) / GIGABYTE} GB free`, bytes);
}

/** Says that a file was used now; of no effect in a folder that cannot be written. */
export function markUsed(path: string): void {
  try {
    const now = new Date();
    utimesSync(path, now, now);
  } catch {
    // Then its age is what it was.
  }
}

function evict(folder: string, limit: number): void {
  const files = writing(folder, () => cachedFiles(folder));
  files.sort((a, b) => a.used - b.used);
  let total = files.reduce((sum, { bytes }) => sum + bytes, 0);
  for (const { path, bytes, half, used } of files) {
    const dead = half && Date.now() - used > DEAD_AFTER_MS;
    // Half files of living processes count, but are theirs.
    if (!dead && (half || total <= limit)) continue;
    rmSync(path, { force: true });
    total -= bytes;
  }
}

interface CachedFile {
  path: string;
  bytes: number;
  /** Milliseconds. */
  used: number;
  /** Not whole yet. */
  half: boolean;
}

/** Nothing but what this package has put there. */
function cachedFiles(folder: string): CachedFile[] {
  return readdirSync(folder).flatMap((name) => {
    const half = /^\.[0-9a-f]{32}\.\w+\.partial-/.test(name);
    if (!half && !/^[0-9a-f]{32}\.(?:weights|hash)$/.test(name)) return [];
    const path = join(folder, name);
    const stats = statSync(path, { throwIfNoEntry: false });
    if (stats === undefined) return [];
    return [{ path, bytes: stats.size, used: stats.mtimeMs, half }];
  });
}

function noRoom(folder: string, expected: string, bytes: number): GqaError {
  const received = `${(bytes / GIGABYTE).toFixed(1)} GB`;
  const message = `No room in ${folder} for ${received} of weights: ${expected}`;
  return new GqaError('WRITE_FAILED', message, { argument: folder, expected, received });
}
