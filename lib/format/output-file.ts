/** Files that are written, each failure a WRITE_FAILED that names the path and the reason. */
import {
  closeSync,
  fsyncSync,
  ftruncateSync,
  lstatSync,
  openSync,
  readdirSync,
  writeFileSync,
  writeSync,
} from 'node:fs';
import { join } from 'node:path';
import { GqaError } from '../core/errors';

/** One writeSync moves at most this much: its length argument is a 32-bit integer. */
const MAX_WRITE_BYTES = 2 ** 30;

const REASONS: Readonly<Record<string, string>> = {
  ENOSPC: 'no space left on the device',
  EDQUOT: 'the disk quota is used up',
  EFBIG: 'the file is larger than it may be',
  EACCES: 'permission denied',
  EPERM: 'not permitted',
  EROFS: 'the file system is read-only',
  ENOENT: 'the folder is not there',
  ENOTDIR: 'the folder is a file',
};

/** A new file, written at any offset. */
export class OutputFile {
  private fd: number;

  /** @throws GqaError WRITE_FAILED, also where there is such a file. */
  constructor(readonly path: string) {
    this.fd = writing(path, () => openSync(path, 'wx'));
  }

  /** @throws GqaError WRITE_FAILED */
  writeAt(bytes: Uint8Array, offset: number): void {
    writing(this.path, () => {
      for (let done = 0; done < bytes.length;) {
        const length = Math.min(bytes.length - done, MAX_WRITE_BYTES);
        done += writeSync(this.fd, bytes, done, length, offset + done);
      }
    });
  }

  /** What lies between the bytes written is zeros. @throws GqaError WRITE_FAILED */
  resize(bytes: number): void {
    writing(this.path, () => ftruncateSync(this.fd, bytes));
  }

  /** Safe to call twice. @throws GqaError WRITE_FAILED */
  close(): void {
    if (this.fd < 0) return;
    const { fd } = this;
    this.fd = -1;
    writing(this.path, () => closeSync(fd));
  }
}

/** Writes a whole file. @throws GqaError WRITE_FAILED */
export function writeWholeFile(path: string, contents: string | Uint8Array): void {
  writing(path, () => writeFileSync(path, contents, { flag: 'wx' }));
}

/** Makes a file, or a folder with all that is in it, outlast a loss of power. @throws GqaError WRITE_FAILED */
export function syncTree(path: string): void {
  writing(path, () => {
    if (lstatSync(path).isDirectory()) {
      for (const name of readdirSync(path)) syncTree(join(path, name));
    }
    syncOne(path);
  });
}

/** The same of one file, or of a folder's list of names. */
export function syncOne(path: string): void {
  const fd = openSync(path, 'r');
  try {
    fsyncSync(fd);
  } finally {
    closeSync(fd);
  }
}

/** Runs what writes `path`. @throws GqaError WRITE_FAILED for whatever the system throws. */
export function writing<T>(path: string, run: () => T): T {
  try {
    return run();
  } catch (cause) {
    if (cause instanceof GqaError) throw cause;
    const { code } = cause as NodeJS.ErrnoException;
    if (code === undefined) throw cause;
    const received = code in REASONS ? `${REASONS[code]} (${code})` : code;
    throw new GqaError('WRITE_FAILED', `Cannot write ${path}: ${received}`, {
      argument: path,
      expected: 'a path that can be written, with space for it',
      received,
      cause,
    });
  }
}
