/** Engines that share prefixes through a store, and go on without it. */
import { setTimeout as sleep } from 'node:timers/promises';
import { Engine } from '../../lib';
import { readAll, request, type Answer } from '../support/engine';
import { embeddedModel, skipped } from '../support/package';
import { RedisServer, serverCommand } from '../support/redis';

const withServer =
  serverCommand === null ? skipped('neither valkey-server nor redis-server is installed') : test;
const prompt = Array.from({ length: 200 }, (_, i) => 3 + ((i * 97) % 2000));

function answer(engine: Engine): Promise<Answer> {
  return readAll(engine.submit(request({ prompt, maxTokens: 8, ignoreEos: true })));
}

withServer('blocks of one engine are found by another, and not missed when gone', async () => {
  const server = new RedisServer();
  await server.start();
  const client = await server.connect();
  const start = async (): Promise<Engine> => {
    const engine = await Engine.start(embeddedModel, { store: { url: server.url } });
    // Figures come with the end of a request.
    do await engine.submit({ prompt: [5], maxTokens: 1 }).result;
    while (engine.stats().store?.connected !== true);
    return engine;
  };
  const first = await start();
  const own = await answer(first);
  expect(own.result.usage.cachedTokens).toBe(0);
  // Blocks are written behind the answer.
  while (((await client.sendCommand(['DBSIZE'])) as unknown as number) < 3);
  const second = await start();
  const other = await answer(second);
  expect(other.result.usage.cachedTokens).toBe(192);
  expect(other.ids).toEqual(own.ids);
  expect(second.stats().store).toMatchObject({ connected: true, hits: 3 });
  await server.stop();
  const late = await readAll(
    second.submit(request({ prompt: [7, ...prompt], maxTokens: 8, ignoreEos: true })),
  );
  expect(late.ids.length).toBe(8);
  // Told by an engine that computes nothing, too.
  while (first.stats().store?.connected === true) await sleep(5);
  await Promise.all([first.dispose(), second.dispose()]);
});

test('a store that cannot be reached is no error of a request', async () => {
  const engine = await Engine.start(embeddedModel, { store: { url: 'redis://127.0.0.1:1' } });
  expect((await answer(engine)).ids.length).toBe(8);
  expect(engine.stats().store).toMatchObject({ connected: false, hits: 0 });
  await engine.dispose();
});

withServer('damaged blocks are refused and computed instead', async () => {
  const server = new RedisServer();
  await server.start();
  const client = await server.connect();
  const keys = (): Promise<string[]> => client.sendCommand<string[]>(['KEYS', 'gqa:*']);
  const start = async (): Promise<Engine> => {
    const store = { url: server.url, timeoutMs: 2000 };
    const engine = await Engine.start(embeddedModel, { store });
    while (engine.stats().store?.connected !== true) await sleep(5);
    return engine;
  };
  const first = await start();
  const own = await answer(first);
  while ((await keys()).length < 3) await sleep(5);
  for (const key of await keys()) await client.sendCommand(['SETRANGE', key, '5000', 'damage']);
  const second = await start();
  const other = await answer(second);
  expect(other.ids).toEqual(own.ids);
  expect(other.result.usage.cachedTokens).toBe(0);
  while (second.stats().store?.corrupt !== 3) await sleep(5);
  await Promise.all([first.dispose(), second.dispose()]);
  await server.stop();
});
