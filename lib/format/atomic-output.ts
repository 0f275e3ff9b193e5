/**
 * Outputs that are whole or not there: all is written to `.NAME.partial-PID-TOKEN` beside OUT and renamed to OUT in the
 * end. What a run that was killed left behind, the next run with the same OUT removes.
 */
import { createHash, randomBytes } from 'node:crypto';
import {
  existsSync,
  lstatSync,
  mkdirSync,
  readdirSync,
  readlinkSync,
  realpathSync,
  renameSync,
  rmSync,
} from 'node:fs';
import { hostname } from 'node:os';
import { basename, dirname, join, resolve, sep } from 'node:path';
import { expectedError, GqaError } from '../core/errors';
import { syncOne, syncTree, writing } from './output-file';

export interface OutputOptions {
  kind: 'file' | 'folder';
  /** Whether an output that is there may be replaced. */
  overwrite?: boolean;
  /** What the output is made from: files or folders that it may not touch. */
  sources?: readonly string[];
  /** A folder is replaced only where it has a file of this name, or nothing: it might be anybody's. */
  mark?: string;
}

/** A run that has written nothing for so long is dead, whatever its process id says. */
const DEAD_AFTER_MS = 24 * 60 * 60 * 1000;
const HOST_CHARS = 8;

export class AtomicOutput {
  /** Where to write: a folder that is there, or a file that is not yet. */
  readonly partial: string;
  private readonly out: string;

  /**
   * @throws GqaError OUTPUT_EXISTS; INVALID_ARGUMENT where `out` and a source are one, or one lies in the other;
   *   WRITE_FAILED
   */
  constructor(
    out: string,
    private readonly options: OutputOptions,
  ) {
    this.out = realOutput(out);
    for (const source of options.sources ?? []) checkApart(this.out, source);
    clearLeftovers(this.out);
    this.checkFree();
    this.partial = beside(this.out, 'partial');
    if (options.kind === 'folder') writing(this.partial, () => mkdirSync(this.partial));
  }

  /**
   * Puts the output into its place; the one that was there is gone then.
   * @throws GqaError OUTPUT_EXISTS where it came to be meanwhile, WRITE_FAILED; nothing is left of this output then.
   */
  commit(): void {
    try {
      syncTree(this.partial);
      this.checkFree();
      writing(this.out, () => {
        this.moveIn();
        syncOne(dirname(this.out));
      });
    } catch (error) {
      this.abort();
      throw error;
    }
  }

  /** Removes what was written; safe to call at any time, after commit too. */
  abort(): void {
    rmSync(this.partial, { recursive: true, force: true });
  }

  /** A folder cannot be renamed over another: the old one steps aside first, and back where that fails. */
  private moveIn(): void {
    if (this.options.kind === 'file' || !existsSync(this.out)) {
      renameSync(this.partial, this.out);
      return;
    }
    const aside = beside(this.out, 'replaced');
    renameSync(this.out, aside);
    try {
      renameSync(this.partial, this.out);
    } catch (error) {
      renameSync(aside, this.out);
      throw error;
    }
    rmSync(aside, { recursive: true });
  }

  private checkFree(): void {
    const stats = lstatSync(this.out, { throwIfNoEntry: false });
    if (stats === undefined) return;
    const { overwrite, kind } = this.options;
    if (overwrite !== true) {
      throw exists(this.out, 'a path where nothing is, or leave to overwrite', 'an output');
    }
    if (kind === 'file' && !stats.isFile()) throw exists(this.out, 'a file to replace', 'no file');
    if (kind === 'folder') this.checkReplaceable(stats.isDirectory());
  }

  private checkReplaceable(isFolder: boolean): void {
    if (!isFolder) throw exists(this.out, 'a folder to replace', 'no folder');
    const { mark } = this.options;
    const names = readdirSync(this.out);
    if (mark === undefined || names.length === 0 || names.includes(mark)) return;
    throw exists(this.out, `a folder with ${mark} to replace`, 'a folder of something else');
  }
}

/** Runs `write` over a path that becomes `out` when it returns; nothing is left where it throws. @throws as AtomicOutput */
export function writeAtomically<T>(
  out: string,
  options: OutputOptions,
  write: (partial: string) => T,
): T {
  const output = new AtomicOutput(out, options);
  try {
    const result = write(output.partial);
    output.commit();
    return result;
  } catch (error) {
    output.abort();
    throw error;
  }
}

function exists(path: string, expected: string, received: string): GqaError {
  return new GqaError('OUTPUT_EXISTS', `Expected ${expected} at ${path} but found ${received}`, {
    argument: path,
    expected,
    received,
  });
}

/** The path with its links followed; of an output that is not there, those of its folder. */
function realOutput(out: string): string {
  const path = resolve(out);
  return writing(path, () =>
    existsSync(path) ? realpathSync(path) : join(realpathSync(dirname(path)), basename(path)),
  );
}

function checkApart(out: string, source: string): void {
  const from = realpathSync(source);
  const within = (path: string, folder: string): boolean =>
    path === folder || path.startsWith(folder.endsWith(sep) ? folder : folder + sep);
  if (!within(out, from) && !within(from, out)) return;
  throw expectedError('INVALID_ARGUMENT', 'out', `a path apart from ${from}`, out);
}

/** Processes with the same id on other machines, or in other containers, are others. */
function hostToken(): string {
  let namespace = '';
  try {
    namespace = readlinkSync('/proc/self/ns/pid');
  } catch {
    // Systems without process id namespaces.
  }
  const hash = createHash('sha256').update(`${hostname()} ${namespace}`).digest('hex');
  return hash.slice(0, HOST_CHARS);
}

function beside(out: string, role: 'partial' | 'replaced'): string {
  const token = hostToken() + randomBytes(6).toString('hex');
  return join(dirname(out), `.${basename(out)}.${role}-${process.pid}-${token}`);
}

/** What dead runs left: half outputs go, an old output that had stepped aside comes back unless there is a new one. */
function clearLeftovers(out: string): void {
  const folder = dirname(out);
  const prefix = `.${basename(out)}.`;
  writing(out, () => {
    for (const name of readdirSync(folder)) {
      if (!name.startsWith(prefix)) continue;
      const match = /^(partial|replaced)-(\d+)-([0-9a-f]{20})$/.exec(name.slice(prefix.length));
      if (match === null) continue;
      const [, role, pid, token] = match;
      const path = join(folder, name);
      if (!isDead(path, Number(pid), token.slice(0, HOST_CHARS))) continue;
      if (role === 'replaced' && !existsSync(out)) renameSync(path, out);
      else rmSync(path, { recursive: true, force: true });
    }
  });
}

function isDead(path: string, pid: number, host: string): boolean {
  if (host === hostToken() && !isAlive(pid)) return true;
  return Date.now() - lastWrite(path) > DEAD_AFTER_MS;
}

function isAlive(pid: number): boolean {
  try {
    process.kill(pid, 0);
    return true;
  } catch (error) {
    return (error as NodeJS.ErrnoException).code !== 'ESRCH';
  }
}

/** Time of the newest change of a file, or of a folder and the files in it; now, where it has just gone. */
function lastWrite(path: string): number {
  const stats = lstatSync(path, { throwIfNoEntry: false });
  if (stats === undefined) return Date.now();
  if (!stats.isDirectory()) return stats.mtimeMs;
  const times = readdirSync(path).map((name) => lastWrite(join(path, name)));
  return Math.max(stats.mtimeMs, ...times);
}
