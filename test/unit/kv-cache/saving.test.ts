/** Sequences saved in a store, block by block: what is written again, what is found damaged, what a failure leaves. */
import type { BlockStore } from '../../../lib';
import { KnownDigests, loadSequence, saveSequence } from '../../../lib/kv-cache/snapshot/saving';
import { FINGERPRINT, PlainCache, PlainSource } from '../../support/plain-sequences';
import { rejectionOf } from '../refusals';

class MemoryStore implements BlockStore {
  readonly values = new Map<string, Uint8Array>();
  readonly puts: string[] = [];
  /** Puts until one fails. */
  failAfter = Infinity;

  get = (key: string) => Promise.resolve(this.values.get(key) ?? null);
  has = (key: string) => Promise.resolve(this.values.has(key));
  delete = (key: string) => Promise.resolve(void this.values.delete(key));
  put = (key: string, bytes: Uint8Array) => {
    if (this.failAfter-- <= 0) return Promise.reject(new Error('the store is full'));
    this.puts.push(key);
    this.values.set(key, Uint8Array.from(bytes));
    return Promise.resolve();
  };
}

/** A source of another length with the blocks of this one as far as they go. */
function grown(source: PlainSource, length: number): PlainSource {
  const longer = new PlainSource(length, 99);
  longer.blocks.forEach((place, i) => {
    const same = source.blocks.findIndex(
      (b) => b.group === place.group && b.ordinal === place.ordinal && b.tokens === place.tokens,
    );
    if (same >= 0) longer.contents[i] = source.contents[same];
  });
  return longer;
}

test('a saved sequence comes back', async () => {
  const store = new MemoryStore();
  const source = new PlainSource(50);
  const result = await saveSequence(source, new KnownDigests(), store, 'name');
  const blocks = source.contents.reduce((sum, bytes) => sum + bytes.length, 0);
  const manifest = store.values.get('sequence/name')!.length;
  expect(result).toEqual({ blocks: 8, written: 8, bytes: blocks + manifest });
  const { sequence } = await loadSequence(new PlainCache(), store, 'name');
  expect(sequence).toEqual(source.whole);
});

test('the manifest is put last', async () => {
  const store = new MemoryStore();
  await saveSequence(new PlainSource(50), new KnownDigests(), store, 'name');
  expect(store.puts.indexOf('sequence/name')).toBe(store.puts.length - 1);
});

test('whole blocks that are saved are neither read nor put again', async () => {
  const store = new MemoryStore();
  const known = new KnownDigests();
  const first = new PlainSource(50);
  await saveSequence(first, known, store, 'name');
  const second = grown(first, 53);
  const { blocks, written } = await saveSequence(second, known, store, 'name');
  expect([blocks, written]).toEqual([8, 2]);
  expect(second.reads).toEqual([0, 0, 0, 1, 0, 0, 0, 1]);
  const { sequence } = await loadSequence(new PlainCache(), store, 'name');
  expect(sequence).toEqual(second.whole);
});

test('blocks that the store has lost are put again', async () => {
  const store = new MemoryStore();
  const known = new KnownDigests();
  const source = new PlainSource(50);
  await saveSequence(source, known, store, 'name');
  const [lost] = store.puts;
  store.values.delete(lost);
  const missing = loadSequence(new PlainCache(), store, 'name');
  expect(await rejectionOf(missing)).toBe('INVALID_SNAPSHOT snapshot');
  expect((await saveSequence(source, known, store, 'name')).written).toBe(1);
  expect((await loadSequence(new PlainCache(), store, 'name')).sequence).toEqual(source.whole);
});

test('another store, and the same blocks of another sequence', async () => {
  const [one, two] = [new MemoryStore(), new MemoryStore()];
  const known = new KnownDigests();
  const source = new PlainSource(50);
  await saveSequence(source, known, one, 'name');
  expect((await saveSequence(source, known, two, 'name')).written).toBe(8);
  expect((await saveSequence(source, new KnownDigests(), one, 'fork')).written).toBe(0);
  expect((await loadSequence(new PlainCache(), one, 'fork')).sequence).toEqual(source.whole);
});

test('what was cut is saved anew', async () => {
  const store = new MemoryStore();
  const known = new KnownDigests();
  const source = new PlainSource(50);
  await saveSequence(source, known, store, 'name');
  // Cut to 20 and appended to again: blocks 1 and 2 are others now, under the same ordinals.
  known.forget(20);
  const other = new PlainSource(50, 2);
  other.contents[0] = source.contents[0];
  other.contents[4] = source.contents[4];
  const { written } = await saveSequence(other, known, store, 'name');
  expect(written).toBe(6);
  expect(other.reads).toEqual([0, 1, 1, 1, 0, 1, 1, 1]);
  expect((await loadSequence(new PlainCache(), store, 'name')).sequence).toEqual(other.whole);
});

test('a loaded sequence knows what is saved of it, and so does a copy', async () => {
  const store = new MemoryStore();
  const source = new PlainSource(50);
  await saveSequence(source, new KnownDigests(), store, 'name');
  const { known } = await loadSequence(new PlainCache(), store, 'name');
  for (const digests of [known, known.copy()]) {
    const longer = grown(source, 60);
    expect((await saveSequence(longer, digests, store, 'longer')).blocks).toBe(8);
    expect(longer.reads).toEqual([0, 0, 0, 1, 0, 0, 0, 1]);
  }
});

test('a save that fails leaves what was saved before', async () => {
  const source = new PlainSource(50);
  for (let puts = 0; puts < 9; puts++) {
    const store = new MemoryStore();
    const known = new KnownDigests();
    await saveSequence(new PlainSource(20, 7), known, store, 'name');
    known.forget(0);
    store.failAfter = puts;
    const saving = saveSequence(source, known, store, 'name');
    await expect(saving).rejects.toMatchObject({
      code: 'STORE_FAILED',
      cause: new Error('the store is full'),
    });
    const before = await loadSequence(new PlainCache(), store, 'name');
    expect(before.sequence).toEqual(new PlainSource(20, 7).whole);
    store.failAfter = Infinity;
    expect((await saveSequence(source, known, store, 'name')).written).toBe(8 - puts);
    const after = await loadSequence(new PlainCache(), store, 'name');
    expect(after.sequence).toEqual(source.whole);
  }
});

test('every damaged byte of manifest and blocks is noticed', async () => {
  const store = new MemoryStore();
  await saveSequence(new PlainSource(20), new KnownDigests(), store, 'name');
  for (const [key, bytes] of store.values) {
    for (let i = 0; i < bytes.length; i++) {
      bytes[i] ^= 16;
      const cache = new PlainCache();
      expect(await rejectionOf(loadSequence(cache, store, 'name'))).toBe(
        'INVALID_SNAPSHOT snapshot',
      );
      expect(cache.aborted).toBe(cache.begun);
      bytes[i] ^= 16;
    }
    for (let i = 0; i < bytes.length; i++) {
      store.values.set(key, bytes.subarray(0, i));
      const cache = new PlainCache();
      expect(await rejectionOf(loadSequence(cache, store, 'name'))).toBe(
        'INVALID_SNAPSHOT snapshot',
      );
      expect(cache.aborted).toBe(cache.begun);
    }
    store.values.set(key, bytes);
  }
  await loadSequence(new PlainCache(), store, 'name');
});

test('another cache, a name that was never saved, arguments', async () => {
  const store = new MemoryStore();
  await saveSequence(new PlainSource(20), new KnownDigests(), store, 'name');
  const other = new PlainCache({ ...FINGERPRINT, model: 'other' });
  expect(await rejectionOf(loadSequence(other, store, 'name'))).toBe(
    'SNAPSHOT_MISMATCH snapshot.model',
  );
  expect(other.begun).toBe(0);
  const cache = new PlainCache();
  expect(await rejectionOf(loadSequence(cache, store, 'nobody'))).toBe('INVALID_ARGUMENT name');
  for (const wrong of [undefined, '', 7, '\ud800'] as never[]) {
    expect(await rejectionOf(loadSequence(cache, store, wrong))).toBe('INVALID_ARGUMENT name');
    const saving = saveSequence(new PlainSource(20), new KnownDigests(), store, wrong);
    expect(await rejectionOf(saving)).toBe('INVALID_ARGUMENT name');
  }
  for (const wrong of [undefined, null, {}, { ...store, get: 7 }] as never[]) {
    expect(await rejectionOf(loadSequence(cache, wrong, 'name'))).toBe('INVALID_ARGUMENT store');
    const saving = saveSequence(new PlainSource(20), new KnownDigests(), wrong, 'name');
    expect(await rejectionOf(saving)).toBe('INVALID_ARGUMENT store');
  }
});

test('a store whose answers are none', async () => {
  for (const answer of [undefined, 'bytes', 7, {}]) {
    const store = new MemoryStore();
    store.get = () => Promise.resolve(answer as never);
    expect(await rejectionOf(loadSequence(new PlainCache(), store, 'name'))).toBe(
      'STORE_FAILED store',
    );
    store.has = () => Promise.resolve(answer as never);
    const saving = saveSequence(new PlainSource(20), new KnownDigests(), store, 'name');
    expect(await rejectionOf(saving)).toBe('STORE_FAILED store');
  }
});
