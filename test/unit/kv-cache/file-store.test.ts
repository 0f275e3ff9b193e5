/** FileBlockStore and files of snapshots: whole or not there, whatever happens in the middle. */
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import {
  chmodSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  truncateSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { FileBlockStore } from '../../../lib';
import { restoreSnapshotFrom, writeSnapshotTo } from '../../../lib/kv-cache/snapshot/streams';
import { libraryPath, nodeCommand } from '../../support/child';
import { PlainCache, PlainSource } from '../../support/plain-sequences';
import { rejectionOf } from '../refusals';

let folder: string;
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'gqa-files-'));
});
afterEach(() => rmSync(folder, { recursive: true }));

function filesIn(path: string): string[] {
  return readdirSync(path, { recursive: true, withFileTypes: true })
    .filter((entry) => entry.isFile())
    .map((entry) => join(entry.parentPath, entry.name));
}

const KEYS = [
  'block/00ff',
  'a',
  'A',
  '.',
  '..',
  '../../outside',
  '/etc/passwd',
  'a\0b',
  'ä😀',
  'CON',
  'x'.repeat(5000),
];

test('values come back under any key, in folders of two levels, and nowhere else', async () => {
  const store = new FileBlockStore(join(folder, 'new', 'blocks'));
  for (const key of KEYS) {
    expect(await store.get(key)).toBeNull();
    expect(await store.has(key)).toBe(false);
    await store.delete(key);
  }
  for (const [i, key] of KEYS.entries()) await store.put(key, new Uint8Array(i).fill(i));
  for (const [i, key] of KEYS.entries()) {
    expect(await store.has(key)).toBe(true);
    expect(Array.from((await store.get(key))!)).toEqual(new Array(i).fill(i));
  }
  const files = filesIn(folder);
  expect(files).toHaveLength(KEYS.length);
  const place = /^new.blocks.[0-9a-f]{2}.[0-9a-f]{2}.[0-9a-f]{60}$/;
  for (const file of files) expect(file.slice(folder.length + 1)).toMatch(place);
});

test('a value is replaced, and deleted', async () => {
  const store = new FileBlockStore(folder);
  const bytes = Uint8Array.from([1, 2, 3]);
  const put = store.put('key', bytes);
  await put;
  bytes.fill(0);
  expect(Array.from((await store.get('key'))!)).toEqual([1, 2, 3]);
  await store.put('key', Uint8Array.from([4]));
  expect(Array.from((await store.get('key'))!)).toEqual([4]);
  await store.delete('key');
  expect(await store.get('key')).toBeNull();
  expect(filesIn(folder)).toEqual([]);
});

test('what get reads is what was put for the key', async () => {
  const store = new FileBlockStore(folder);
  await store.put('key', Uint8Array.from([1, 2, 3]));
  const [path] = filesIn(folder);
  const whole = readFileSync(path);
  for (let i = 0; i < whole.length; i++) {
    const damaged = Buffer.from(whole);
    damaged[i] ^= 1;
    writeFileSync(path, damaged);
    expect(await rejectionOf(store.get('key'))).toBe('INVALID_SNAPSHOT snapshot');
    truncateSync(path, i);
    expect(await rejectionOf(store.get('key'))).toBe('INVALID_SNAPSHOT snapshot');
  }
  // The value of one key in the place of another's.
  writeFileSync(path, whole);
  await store.put('other', Uint8Array.from([4]));
  writeFileSync(
    filesIn(folder).find((file) => file !== path)!,
    whole,
  );
  expect(await rejectionOf(store.get('other'))).toBe('INVALID_SNAPSHOT snapshot');
  expect(Array.from((await store.get('key'))!)).toEqual([1, 2, 3]);
});

test('a folder that cannot be', async () => {
  writeFileSync(join(folder, 'file'), '');
  const store = new FileBlockStore(join(folder, 'file', 'blocks'));
  expect(await rejectionOf(store.put('key', new Uint8Array(1)))).toBe('STORE_FAILED store');
  expect(await rejectionOf(store.get('key'))).toBe('STORE_FAILED store');
  expect(await rejectionOf(store.has('key'))).toBe('STORE_FAILED store');
  const nul = new FileBlockStore('a\0b');
  expect(await rejectionOf(nul.put('key', new Uint8Array(1)))).toBe('STORE_FAILED store');
});

test('arguments', async () => {
  for (const wrong of [undefined, null, '', 7, {}]) {
    expect(() => new FileBlockStore(wrong as never)).toThrow(/folder/);
    const store = new FileBlockStore(folder);
    expect(await rejectionOf(store.get(wrong as never))).toBe('INVALID_ARGUMENT key');
  }
  // Half of a surrogate pair has no UTF-8 of its own.
  const store = new FileBlockStore(folder);
  expect(await rejectionOf(store.get('\ud800'))).toBe('INVALID_ARGUMENT key');
});

test('a process killed while it writes leaves whole values', async () => {
  const store = new FileBlockStore(folder);
  const size = 2 ** 20;
  await store.put('key', new Uint8Array(size).fill(1));
  const program = `
    const { FileBlockStore } = require(${JSON.stringify(libraryPath)});
    const store = new FileBlockStore(${JSON.stringify(folder)});
    (async () => {
      for (let i = 2; ; i = (i + 1) % 256) {
        await store.put('key', new Uint8Array(${size}).fill(i));
        if (i === 2) process.stdout.write('writing');
      }
    })();`;
  const [command, ...prefix] = nodeCommand();
  for (let run = 0; run < 3; run++) {
    const child = spawn(command, [...prefix, '-e', program], {
      stdio: ['ignore', 'pipe', 'inherit'],
    });
    await once(child.stdout, 'data');
    await new Promise((resolve) => setTimeout(resolve, 5 + 7 * run));
    child.kill('SIGKILL');
    await once(child, 'exit');
    const value = (await store.get('key'))!;
    expect(value).toHaveLength(size);
    expect(value.every((byte) => byte === value[0])).toBe(true);
  }
});

describe('files of snapshots', () => {
  const source = new PlainSource(50);

  test('come back', async () => {
    const path = join(folder, 'a snapshot');
    writeFileSync(path, 'what was there before');
    const bytes = await writeSnapshotTo(source, path);
    expect(readFileSync(path)).toHaveLength(bytes);
    expect(readdirSync(folder)).toEqual(['a snapshot']);
    expect(await restoreSnapshotFrom(new PlainCache(), path)).toEqual(source.whole);
  });

  test('are replaced by whole ones only', async () => {
    const path = join(folder, 'snapshot');
    await writeSnapshotTo(source, path);
    const before = readFileSync(path);
    const broken = new PlainSource(50, 2);
    broken.read = (index) => {
      if (index === 3) throw new Error('no such block');
    };
    expect(await rejectionOf(writeSnapshotTo(broken, path))).toBe('STORE_FAILED target');
    expect(readdirSync(folder)).toEqual(['snapshot']);
    expect(readFileSync(path).equals(before)).toBe(true);
  });

  test('that are not there, are folders or are cut off', async () => {
    const cache = new PlainCache();
    const missing = join(folder, 'missing');
    expect(await rejectionOf(restoreSnapshotFrom(cache, missing))).toBe('STORE_FAILED source');
    expect(await rejectionOf(restoreSnapshotFrom(cache, folder))).toBe('STORE_FAILED source');
    const nowhere = join(missing, 'snapshot');
    expect(await rejectionOf(writeSnapshotTo(source, nowhere))).toBe('STORE_FAILED target');
    const sub = join(folder, 'sub');
    mkdirSync(sub);
    expect(await rejectionOf(writeSnapshotTo(source, sub))).toBe('STORE_FAILED target');
    expect(readdirSync(folder)).toEqual(['sub']);
    const path = join(folder, 'snapshot');
    const bytes = await writeSnapshotTo(source, path);
    truncateSync(path, bytes - 1);
    expect(await rejectionOf(restoreSnapshotFrom(cache, path))).toBe('INVALID_SNAPSHOT snapshot');
    expect(cache.begun).toBe(cache.aborted);
  });

  test('that may not be read', async () => {
    // Whoever is root may read everything.
    if (process.getuid?.() === 0) return;
    const path = join(folder, 'snapshot');
    await writeSnapshotTo(source, path);
    chmodSync(path, 0);
    const restored = restoreSnapshotFrom(new PlainCache(), path);
    expect(await rejectionOf(restored)).toBe('STORE_FAILED source');
  });
});
