/** A BlockStore in a folder: a file per key, each whole or not there. */
import { createHash, randomUUID } from 'node:crypto';
import { access, mkdir, open, readFile, rename, rm } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { requireName, seal, storing, unseal } from './store';
import type { BlockStore } from './store';

/**
 * Writes what `write` gives into a file beside `path`, makes it lasting and puts it in the place of `path`: a process
 * that is killed leaves the old file or the new one, and perhaps one whose name ends in .tmp.
 */
export async function replaceFile(
  path: string,
  write: (put: (bytes: Uint8Array) => Promise<void>) => Promise<void>,
): Promise<void> {
  const beside = `${path}.${randomUUID()}.tmp`;
  const file = await open(beside, 'wx');
  try {
    try {
      await write((bytes) => file.writeFile(bytes));
      await file.sync();
    } finally {
      await file.close();
    }
    await rename(beside, path);
  } catch (error) {
    // The reason is what failed first.
    await rm(beside, { force: true }).catch(() => undefined);
    throw error;
  }
  await syncFolder(dirname(path));
}

/** Makes a rename lasting; not every system lets a folder be opened, and where it does not, none is needed. */
async function syncFolder(path: string): Promise<void> {
  if (process.platform === 'win32') return;
  const folder = await open(path, 'r');
  try {
    await folder.sync();
  } finally {
    await folder.close();
  }
}

/**
 * Keeps blocks in files below a folder, which is made when the first is put. Several processes may use one folder.
 *
 * A key's file is named by the SHA-256 of the key, in folders by its first and second byte, and begins with a SHA-256 of
 * key and bytes, which get checks.
 */
export class FileBlockStore implements BlockStore {
  readonly folder: string;

  /** @throws GqaError INVALID_ARGUMENT */
  constructor(folder: string) {
    this.folder = requireName(folder, 'folder');
  }

  /** @throws GqaError STORE_FAILED, INVALID_SNAPSHOT (the file is damaged), INVALID_ARGUMENT. */
  async get(key: string): Promise<Uint8Array | null> {
    const path = this.pathOf(key);
    return storing('store', `reading ${path}`, async () => {
      try {
        return unseal(key, await readFile(path));
      } catch (error) {
        if (isMissing(error)) return null;
        throw error;
      }
    });
  }

  /** @throws GqaError STORE_FAILED, INVALID_ARGUMENT. */
  async put(key: string, bytes: Uint8Array): Promise<void> {
    const path = this.pathOf(key);
    await storing('store', `writing ${path}`, async () => {
      await mkdir(dirname(path), { recursive: true });
      await replaceFile(path, (put) => put(seal(key, bytes)));
    });
  }

  /** @throws GqaError STORE_FAILED, INVALID_ARGUMENT. */
  async has(key: string): Promise<boolean> {
    const path = this.pathOf(key);
    return storing('store', `looking for ${path}`, async () => {
      try {
        await access(path);
        return true;
      } catch (error) {
        if (isMissing(error)) return false;
        throw error;
      }
    });
  }

  /** @throws GqaError STORE_FAILED, INVALID_ARGUMENT. */
  async delete(key: string): Promise<void> {
    const path = this.pathOf(key);
    await storing('store', `deleting ${path}`, () => rm(path, { force: true }));
  }

  private pathOf(key: string): string {
    const name = createHash('sha256').update(requireName(key, 'key')).digest('hex');
    return join(this.folder, name.slice(0, 2), name.slice(2, 4), name.slice(4));
  }
}

function isMissing(error: unknown): boolean {
  return (error as NodeJS.ErrnoException | null)?.code === 'ENOENT';
}
