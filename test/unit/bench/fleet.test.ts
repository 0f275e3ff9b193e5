/** The pieces of the fleet's simulation. */
import { ChainCache } from '../../../bench/fleet/chain-cache';
import { Hashing, Ring, RoundRobin } from '../../../bench/fleet/routing';
import { REPLICA, simulate } from '../../../bench/fleet/simulate';
import { BLOCK, makeTrace, type Request } from '../../../bench/fleet/trace';

const SHAPE = { requests: 4000, rate: 10, applications: 20, seed: 3 };
const trace = makeTrace(SHAPE);

function request(conversation: number, commonBlocks: number, ownBlocks: number): Request {
  const of = { application: conversation % 10, conversation, commonBlocks, ownBlocks };
  return { time: 0, ...of, restTokens: 5, outputTokens: 10 };
}

test('a trace is what its seed says, in order, at its rate; prompts grow', () => {
  expect(makeTrace(SHAPE)).toEqual(trace);
  expect(makeTrace({ ...SHAPE, seed: 4 })).not.toEqual(trace);
  expect(trace).toHaveLength(4000);
  const blocks = new Map<number, number>();
  const wrong = trace.filter(({ time, conversation, commonBlocks, ownBlocks, restTokens }, i) => {
    const inOrder = i === 0 || time >= trace[i - 1].time;
    const grown = ownBlocks >= (blocks.get(conversation) ?? 0);
    blocks.set(conversation, ownBlocks);
    return !(inOrder && grown && restTokens < BLOCK && commonBlocks + ownBlocks < 8192 / BLOCK);
  });
  expect(wrong).toEqual([]);
  const { time } = trace[3999];
  expect(4000 / time).toBeGreaterThan(8);
  expect(4000 / time).toBeLessThan(12);
});

test('a cache finds leading blocks, and loses the least recently used tail first', () => {
  const cache = new ChainCache(10);
  cache.add(request(1, 2, 3));
  expect(cache.find(request(1, 2, 4))).toBe(5);
  expect(cache.find(request(11, 2, 4))).toBe(2);
  expect(cache.find(request(2, 2, 4))).toBe(0);
  cache.add(request(12, 1, 6));
  expect(cache.blocks).toBe(10);
  // Conversation 1 has lost two blocks of its own, its application none.
  expect(cache.find(request(1, 2, 3))).toBe(3);
  cache.add(request(23, 1, 20));
  expect([cache.blocks, cache.find(request(1, 2, 3)), cache.find(request(12, 1, 6))]).toEqual([
    10, 0, 0,
  ]);
});

const fleet = (replicas: number) => ({
  active: new Int32Array(replicas),
  totalActive: 0,
  alive: new Uint8Array(replicas).fill(1),
  living: replicas,
});

test('round robin gives each its turn, but for the lost', () => {
  const robin = new RoundRobin();
  const four = fleet(4);
  four.alive[2] = 0;
  const turns = Array.from({ length: 6 }, () => robin.pick(request(1, 1, 1), four));
  expect(turns).toEqual([1, 3, 0, 1, 3, 0]);
});

test('a ring shares keys evenly, and a lost replica moves its own keys only', () => {
  const ring = new Ring(10);
  const keys = Array.from({ length: 20_000 }, (_, i) => i);
  const before = keys.map((key) => ring.find(key, () => true));
  const after = keys.map((key) => ring.find(key, (replica) => replica !== 3));
  const counts = new Array<number>(10).fill(0);
  for (const replica of before) counts[replica]++;
  const moved = keys.filter((_, i) => before[i] !== after[i]);
  expect(moved).toEqual(keys.filter((_, i) => before[i] === 3));
  expect(Math.max(...counts)).toBeLessThan(2800);
  expect(Math.min(...counts)).toBeGreaterThan(1300);
  expect(new Set(after.filter((_, i) => before[i] === 3)).size).toBeGreaterThan(5);
});

test('a bound keeps a replica from more than its share', () => {
  const bounded = new Hashing(4, 'application', 1.25);
  const four = fleet(4);
  for (let i = 0; i < 100; i++) {
    four.active[bounded.pick(request(7, 1, 1), four)]++;
    four.totalActive++;
  }
  expect(Math.max(...four.active)).toBeLessThanOrEqual(Math.ceil(1.25 * 25) + 1);
  expect(new Hashing(4, 'application').pick(request(7, 1, 1), four)).toBe(
    new Hashing(4, 'application').pick(request(17, 1, 1), fleet(4)),
  );
});

test('a fleet of one finds all that came before; a lost cache is computed again', () => {
  const one = simulate(trace, { replicas: 1, router: new RoundRobin(), store: false });
  const model = { ...REPLICA, cacheBlocks: 1e9 };
  const endless = simulate(trace, { replicas: 1, router: new RoundRobin(), store: false, model });
  expect(endless.cacheHits).toBeGreaterThan(one.cacheHits);
  expect(endless.spread).toBe(1);
  const hashed = (store: boolean, loss: boolean) =>
    simulate(trace, { replicas: 8, router: new Hashing(8, 'conversation'), store, loss });
  const [apart, lost] = [hashed(false, false), hashed(false, true)];
  expect(apart.storeHits).toBe(0);
  expect(apart.failed).toBe(0);
  expect(lost.failed).toBeGreaterThan(0);
  expect(lost.computedTokens).toBeGreaterThan(apart.computedTokens);
  const [shared, sharedLost] = [hashed(true, false), hashed(true, true)];
  // Whatever any replica had is found.
  expect(shared.cacheHits + shared.storeHits).toBeGreaterThan(apart.cacheHits);
  expect(shared.computedTokens).toBeLessThan(apart.computedTokens);
  expect(sharedLost.computedTokens - shared.computedTokens).toBeLessThan(
    lost.computedTokens - apart.computedTokens,
  );
  const robin = simulate(trace, { replicas: 8, router: new RoundRobin(), store: false });
  expect(robin.cacheHits).toBeLessThan(apart.cacheHits);
  expect(robin.spread).toBeLessThan(apart.spread);
});
