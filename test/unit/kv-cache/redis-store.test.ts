/** RedisBlockStore against a real server, which is killed in the middle of writes. */
import { RedisBlockStore, type RedisClient } from '../../../lib';
import { KnownDigests, loadSequence, saveSequence } from '../../../lib/kv-cache/snapshot/saving';
import { appendRandom, attended, filled } from '../../support/caches';
import { skipped } from '../../support/package';
import { FINGERPRINT, PlainCache, PlainSource } from '../../support/plain-sequences';
import type { PlainSequence } from '../../support/plain-sequences';
import { Random } from '../../support/random';
import { RedisServer, serverCommand, type Client } from '../../support/redis';
import { errorOf, rejectionOf } from '../refusals';

const withServer =
  serverCommand === null ? skipped('neither redis-server nor valkey-server is installed') : test;

let server: RedisServer;
let client: Client;
beforeAll(async () => {
  if (serverCommand === null) return;
  server = new RedisServer();
  await server.start();
  client = await server.connect();
});
afterAll(() => server?.stop());

withServer('values come back, are replaced and deleted', async () => {
  const store = new RedisBlockStore(client);
  const bytes = Uint8Array.from({ length: 256 }, (_, i) => i);
  expect(await store.get('key')).toBeNull();
  expect(await store.has('key')).toBe(false);
  await store.delete('key');
  await store.put('key', bytes);
  expect(await store.has('key')).toBe(true);
  expect(Buffer.from((await store.get('key'))!).equals(bytes)).toBe(true);
  await store.put('key', new Uint8Array(0));
  expect(await store.get('key')).toHaveLength(0);
  await store.delete('key');
  expect(await store.get('key')).toBeNull();
});

withServer('keys have the prefix, values their time', async () => {
  const store = new RedisBlockStore(client, { prefix: 'mine:', ttlSeconds: 100 });
  await store.put('key', Uint8Array.from([1]));
  expect(Number(await client.sendCommand(['TTL', 'mine:key']))).toBeGreaterThan(90);
  await client.sendCommand(['EXPIRE', 'mine:key', '50']);
  expect(await store.has('key')).toBe(true);
  expect(Number(await client.sendCommand(['TTL', 'mine:key']))).toBeGreaterThan(90);
  expect(await store.has('other')).toBe(false);
  expect(await new RedisBlockStore(client).has('key')).toBe(false);
});

withServer('damaged values are noticed', async () => {
  const store = new RedisBlockStore(client);
  await store.put('key', Uint8Array.from([1, 2, 3]));
  await client.sendCommand(['SETRANGE', 'gqa:key', '33', 'x']);
  expect(await rejectionOf(store.get('key'))).toBe('INVALID_SNAPSHOT snapshot');
  await client.sendCommand(['SET', 'gqa:key', 'short']);
  expect(await rejectionOf(store.get('key'))).toBe('INVALID_SNAPSHOT snapshot');
  await store.put('key', Uint8Array.from([1, 2, 3]));
  await client.sendCommand(['COPY', 'gqa:key', 'gqa:other']);
  expect(await rejectionOf(store.get('other'))).toBe('INVALID_SNAPSHOT snapshot');
});

withServer('what the server refuses', async () => {
  const store = new RedisBlockStore(client);
  await client.sendCommand(['HSET', 'gqa:hash', 'a', '1']);
  await expect(store.get('hash')).rejects.toMatchObject({
    code: 'STORE_FAILED',
    cause: expect.objectContaining({ message: expect.stringContaining('WRONGTYPE') }),
  });
  await client.sendCommand(['CONFIG', 'SET', 'maxmemory', '1']);
  expect(await rejectionOf(store.put('key', new Uint8Array(1000)))).toBe('STORE_FAILED store');
  await client.sendCommand(['CONFIG', 'SET', 'maxmemory', '0']);
  await store.put('key', new Uint8Array(1000));
});

withServer('sequences are saved and loaded, by other clients too', async () => {
  const source = new PlainSource(50);
  const known = new KnownDigests();
  const store = new RedisBlockStore(client, { prefix: 'sequences:' });
  expect((await saveSequence(source, known, store, 'name')).written).toBe(8);
  expect((await saveSequence(source, known, store, 'name')).written).toBe(0);
  const elsewhere = new RedisBlockStore(await server.connect(), { prefix: 'sequences:' });
  const { sequence } = await loadSequence(new PlainCache(), elsewhere, 'name');
  expect(sequence).toEqual(source.whole);
});

/** toEqual would look at each of the millions of bytes. */
function expectSame(a: PlainSequence, b: PlainSequence): void {
  expect(a.image).toEqual(b.image);
  expect(a.blocks.length).toBe(b.blocks.length);
  a.blocks.forEach((bytes, i) => expect(Buffer.from(bytes).equals(b.blocks[i])).toBe(true));
}

/** Blocks of hundreds of kilobytes, so that a kill falls into the writing of one. */
const SCALE = 2 ** 15;

withServer(
  'the server is killed in the middle of each write',
  async () => {
    const old = new PlainSource(20, 1, FINGERPRINT, SCALE);
    const next = new PlainSource(50, 2, FINGERPRINT, SCALE);
    const cache = new PlainCache(FINGERPRINT, SCALE);
    const plain = new RedisBlockStore(client, { prefix: 'kill:' });
    await saveSequence(old, new KnownDigests(), plain, 'name');
    const known = new KnownDigests();
    for (const fatal of [1, 4, 9]) {
      let writes = 0;
      const victim: RedisClient = {
        sendCommand: (args, options) => {
          const answer = client.sendCommand(args, options);
          if (args[0] === 'SET' && ++writes === fatal) server.kill();
          return answer;
        },
        get isReady() {
          return client.isReady;
        },
      };
      const dying = new RedisBlockStore(victim, { prefix: 'kill:' });
      expect(await rejectionOf(saveSequence(next, known, dying, 'name'))).toBe(
        'STORE_FAILED store',
      );
      await server.gone();
      await server.start();
      while (!client.isReady) await new Promise((resolve) => setTimeout(resolve, 5));
      // What the name meant before, or all of the new where the last write was done and its answer lost.
      const { sequence } = await loadSequence(cache, plain, 'name');
      const { length } = sequence.image;
      expectSame(sequence, length === 50 && fatal === 9 ? next.whole : old.whole);
      for (const key of await client.sendCommand<string[]>(['KEYS', 'kill:block/*'])) {
        if (fatal < 9) await client.sendCommand(['DEL', key]);
      }
      if (fatal < 9) await saveSequence(old, new KnownDigests(), plain, 'name');
    }
    await saveSequence(next, known, plain, 'name');
    expect((await loadSequence(cache, plain, 'name')).sequence).toEqual(next.whole);
    expect(cache.begun).toBe(4);
  },
  60_000,
);

withServer(
  'a sequence goes on as if its save had not been, when the server is killed',
  async () => {
    const { cache, sequence } = filled('q8, windowed, recent', 300);
    const store = new RedisBlockStore(client, { prefix: 'real:' });
    await sequence.saveTo(store, 'name');
    const [saved, bits] = [Buffer.from(sequence.snapshot()), attended(sequence)];
    sequence.truncate(270);
    appendRandom(sequence, new Random(1), 130);
    const now = Buffer.from(sequence.snapshot());
    const victim: RedisClient = {
      sendCommand: (args, options) => {
        if (args[0] === 'SET') server.kill();
        return client.sendCommand(args, options);
      },
      get isReady() {
        return client.isReady;
      },
    };
    const saving = sequence.saveTo(new RedisBlockStore(victim, { prefix: 'real:' }), 'name');
    expect(errorOf(() => sequence.truncate(300))).toBe('BUSY sequence');
    expect(await rejectionOf(saving)).toBe('STORE_FAILED store');
    expect(Buffer.from(sequence.snapshot()).equals(now)).toBe(true);
    await server.gone();
    await server.start();
    while (!client.isReady) await new Promise((resolve) => setTimeout(resolve, 5));
    const before = await cache.loadFrom(store, 'name');
    expect(Buffer.from(before.snapshot()).equals(saved)).toBe(true);
    expect(attended(before)).toBe(bits);
    before.dispose();
    await sequence.saveTo(store, 'name');
    const after = await cache.loadFrom(store, 'name');
    expect(Buffer.from(after.snapshot()).equals(now)).toBe(true);
  },
);

withServer('without a server nothing waits', async () => {
  const lonely = new RedisServer();
  await lonely.start();
  const cut = await lonely.connect();
  const store = new RedisBlockStore(cut);
  lonely.kill();
  await lonely.gone();
  const saving = saveSequence(new PlainSource(50), new KnownDigests(), store, 'name');
  expect(await rejectionOf(saving)).toBe('STORE_FAILED store');
  expect(await rejectionOf(store.get('key'))).toBe('STORE_FAILED store');
  await lonely.stop();
});

test('a server that does not answer', async () => {
  const silent: RedisClient = { sendCommand: () => new Promise(() => undefined) };
  const store = new RedisBlockStore(silent, { timeoutMs: 10 });
  expect(await rejectionOf(store.get('key'))).toBe('STORE_FAILED store');
  expect(await rejectionOf(store.put('key', new Uint8Array(1)))).toBe('STORE_FAILED store');
});

test('a client that answers otherwise', async () => {
  for (const answer of [undefined, 7, 'text', []]) {
    const odd: RedisClient = { sendCommand: () => Promise.resolve(answer) };
    const store = new RedisBlockStore(odd);
    expect(await rejectionOf(store.get('key'))).toBe('STORE_FAILED store');
    expect(await rejectionOf(store.put('key', new Uint8Array(1)))).toBe('STORE_FAILED store');
  }
});

test('arguments', async () => {
  const fine: RedisClient = { sendCommand: () => Promise.resolve(null) };
  for (const wrong of [null, undefined, {}, 'redis://localhost'] as never[]) {
    expect(errorOf(() => new RedisBlockStore(wrong))).toBe('INVALID_ARGUMENT client');
  }
  const refused = (options: object) => errorOf(() => new RedisBlockStore(fine, options));
  expect(refused({ prefix: 7 })).toBe('INVALID_ARGUMENT options.prefix');
  expect(refused({ ttlSeconds: 0 })).toBe('OUT_OF_RANGE options.ttlSeconds');
  expect(refused({ ttlSeconds: 1.5 })).toBe('INVALID_ARGUMENT options.ttlSeconds');
  expect(refused({ timeoutMs: -1 })).toBe('OUT_OF_RANGE options.timeoutMs');
  expect(errorOf(() => new RedisBlockStore(fine, null as never))).toBe('INVALID_ARGUMENT options');
  const store = new RedisBlockStore(fine);
  expect(await rejectionOf(store.get(''))).toBe('INVALID_ARGUMENT key');
});
