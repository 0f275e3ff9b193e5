/** A store of prefixes against a real server, which hangs, is killed and comes back. */
import { setTimeout as sleep } from 'node:timers/promises';
import { KvCache } from '../../../lib';
import { PrefixStore } from '../../../lib/engine/prefix-store';
import type { PrefixStoreSettings } from '../../../lib/engine/prefix-store';
import { appendRandom } from '../../support/caches';
import { skipped } from '../../support/package';
import { Random } from '../../support/random';
import { RedisServer, serverCommand, type Client } from '../../support/redis';
import { errorOf } from '../refusals';

const withServer =
  serverCommand === null ? skipped('neither redis-server nor valkey-server is installed') : test;

let server: RedisServer;
let client: Client;
const stores: PrefixStore[] = [];

beforeAll(async () => {
  if (serverCommand === null) return;
  server = new RedisServer();
  await server.start();
  client = await server.connect();
});
afterEach(async () => {
  await Promise.all(stores.splice(0).map((store) => store.dispose()));
  if (serverCommand !== null) await client.sendCommand(['FLUSHALL']);
});
afterAll(() => server?.stop());

async function until(what: () => boolean | Promise<boolean>): Promise<void> {
  while (!(await what())) await sleep(5);
}

function started(settings: Partial<PrefixStoreSettings> = {}): PrefixStore {
  const store = PrefixStore.start({ url: server.url, identity: 'm', blockTokens: 4, ...settings });
  stores.push(store);
  return store;
}

async function connected(settings: Partial<PrefixStoreSettings> = {}): Promise<PrefixStore> {
  const store = started(settings);
  await until(() => store.stats().connected);
  return store;
}

const TOKENS = Array.from({ length: 22 }, (_, i) => 100 + i);

function block(value: number, bytes = 5000): Uint8Array {
  return new Uint8Array(bytes).fill(value);
}

/** The first number of each block. */
async function found(store: PrefixStore, from = 0, tokens = TOKENS): Promise<number[]> {
  return (await store.find(tokens, from)).map((bytes) => bytes[0]);
}

/** What was put has been written. */
async function written(store: PrefixStore): Promise<void> {
  await until(() => store.stats().pendingBytes === 0);
}

async function filled(settings: Partial<PrefixStoreSettings> = {}): Promise<PrefixStore> {
  const store = await connected(settings);
  store.put(TOKENS, 0, [block(1), block(2), block(3)]);
  await written(store);
  return store;
}

const keys = async (): Promise<string[]> => client.sendCommand<string[]>(['KEYS', 'gqa:prefix:*']);

withServer('what one replica puts others find, up to the first block that is missing', async () => {
  const one = await filled();
  one.put(TOKENS, 4, [block(5)]);
  await written(one);
  const other = await connected();
  expect(await found(other)).toEqual([1, 2, 3]);
  expect(await found(other, 1)).toEqual([2, 3]);
  expect(await found(other, 4)).toEqual([5]);
  expect(await found(other, 5)).toEqual([]);
  expect(await found(other, 0, [...TOKENS.slice(0, 7), 0])).toEqual([1]);
  expect(await found(other, 0, TOKENS.slice(0, 3))).toEqual([]);
  expect(await found(other, 0, TOKENS.slice(1))).toEqual([]);
  expect(other.stats()).toMatchObject({ hits: 7, misses: 2 + 2 + 1 + 5, errors: 0, corrupt: 0 });
  expect(one.stats()).toMatchObject({ written: 4, dropped: 0 });
  other.put(TOKENS, 2, [block(3), block(4)]);
  await written(other);
  expect(other.stats()).toMatchObject({ written: 1 });
  expect(await found(one)).toEqual([1, 2, 3, 4, 5]);
});

withServer("another model's blocks are not found", async () => {
  await filled();
  expect(await found(await connected({ identity: 'another' }))).toEqual([]);
});

withServer('values have their time, which begins anew when they are put again', async () => {
  const store = await filled({ ttlSeconds: 1000 });
  const [key] = await keys();
  const left = async () => Number(await client.sendCommand(['TTL', key]));
  expect(await left()).toBeGreaterThan(900);
  await client.sendCommand(['EXPIRE', key, '10']);
  store.put(TOKENS, 0, [block(1), block(2), block(3)]);
  await written(store);
  expect(await left()).toBeGreaterThan(900);
});

withServer('damaged and foreign values are refused, counted, and replaced', async () => {
  const store = await filled();
  for (const key of await keys()) await client.sendCommand(['SETRANGE', key, '3000', 'x']);
  expect(await found(store)).toEqual([]);
  expect(store.stats()).toMatchObject({ corrupt: 3, hits: 0, errors: 0, connected: true });
  await until(async () => (await keys()).length === 0);
  store.put(TOKENS, 0, [block(1), block(2)]);
  await written(store);
  const [one, other] = await keys();
  await client.sendCommand(['COPY', one, other, 'REPLACE']);
  expect(await found(store)).not.toContain(2);
  expect(store.stats().corrupt).toBe(4);
  store.refused();
  expect(store.stats().corrupt).toBe(5);
});

withServer('a value that is no value is an error, and no block', async () => {
  const store = await filled();
  const [key] = await keys();
  await client.sendCommand(['DEL', key]);
  await client.sendCommand(['HSET', key, 'a', '1']);
  expect((await found(store)).length).toBeLessThan(3);
  expect(store.stats().connected).toBe(true);
});

withServer(
  'a server that is killed is missed by nobody, and used again when it is back',
  async () => {
    const store = await filled();
    const lookup = store.find(TOKENS, 0);
    server.kill();
    await server.gone();
    expect((await lookup).length).toBeLessThanOrEqual(3);
    await until(() => !store.stats().connected);
    expect(await found(store)).toEqual([]);
    store.put(TOKENS, 3, [block(4)]);
    expect(store.stats()).toMatchObject({ dropped: 1, pendingBytes: 0 });
    await server.start();
    await until(() => store.stats().connected);
    expect(await found(store)).toEqual([1, 2, 3]);
    store.put(TOKENS, 3, [block(4)]);
    await written(store);
    expect(await found(store)).toEqual([1, 2, 3, 4]);
  },
);

withServer('a server that hangs is given up, and used again when it answers', async () => {
  const store = await filled({ timeoutMs: 50 });
  server.pause();
  try {
    for (let i = 0; i < 3; i++) expect(await found(store)).toEqual([]);
    await until(() => !store.stats().connected);
    expect(store.stats().errors).toBe(3);
    expect(await found(store)).toEqual([]);
    expect(store.stats().errors).toBe(3);
  } finally {
    server.resume();
  }
  await until(() => store.stats().connected);
  expect(await found(store)).toEqual([1, 2, 3]);
});

withServer('what the queue has no room for is dropped', async () => {
  const store = await connected({ maxPendingBytes: 12_000 });
  server.pause();
  try {
    for (let i = 0; i < 5; i++) store.put(TOKENS, i, [block(i)]);
    expect(store.stats()).toMatchObject({ dropped: 3, pendingBytes: 10_000 });
  } finally {
    server.resume();
  }
  await written(store);
  expect(await found(store)).toEqual([0, 1]);
});

withServer('what waits is written before the store ends, and nothing after', async () => {
  const store = await connected();
  store.put(TOKENS, 0, [block(1), block(2)]);
  const lookup = store.find(TOKENS, 0);
  await store.dispose();
  await lookup;
  expect(await found(store)).toEqual([]);
  store.put(TOKENS, 2, [block(3)]);
  expect(store.stats()).toMatchObject({ connected: false, dropped: 1 });
  expect(await found(await connected())).toEqual([1, 2]);
});

withServer('blocks of a cache go through to another', async () => {
  const cache = () =>
    new KvCache({ layers: 2, kvHeads: 2, headDim: 32, capacity: 256, prefixTokens: 256 });
  const [from, to] = [cache(), cache()];
  const ids = Array.from({ length: 130 }, (_, i) => i);
  const sequence = from.sequence();
  appendRandom(sequence, new Random(1), 130);
  sequence.share(ids);
  const settings = { identity: from.prefixLayout, blockTokens: from.blockTokens };
  const store = await connected(settings);
  store.put(ids, 0, from.exportPrefix(ids, 0, 2));
  await written(store);
  const other = await connected(settings);
  expect(to.importPrefix(ids, 0, await other.find(ids, 0))).toBe(128);
  expect(to.exportPrefix(ids, 0, 2)).toEqual(from.exportPrefix(ids, 0, 2));
});

test('without a server nothing is found, and nobody waits', async () => {
  const store = PrefixStore.start({ url: 'unix:///no/such/socket', identity: 'm' });
  expect(await store.find([1, 2, 3], 0)).toEqual([]);
  expect(await store.find(new Array(200).fill(1), 0)).toEqual([]);
  store.put(new Array(64).fill(1), 0, [block(1)]);
  expect(store.stats()).toMatchObject({ connected: false, misses: 3, dropped: 1 });
  await store.dispose();
  await store.dispose();
});

test.each([
  ['INVALID_ARGUMENT settings', undefined],
  ['INVALID_ARGUMENT settings.url', { identity: 'm' }],
  ['INVALID_ARGUMENT settings.url', { identity: 'm', url: 'http://host' }],
  ['INVALID_ARGUMENT settings.identity', { identity: '', url: 'redis://host' }],
  ['OUT_OF_RANGE settings.ttlSeconds', { identity: 'm', url: 'redis://host', ttlSeconds: 0 }],
  ['INVALID_ARGUMENT settings.timeoutMs', { identity: 'm', url: 'redis://host', timeoutMs: '1' }],
])('refuses with %s (%#)', (expected, settings) => {
  expect(errorOf(() => PrefixStore.start(settings as never))).toBe(expected);
});
