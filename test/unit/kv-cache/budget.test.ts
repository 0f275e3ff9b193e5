/** Budgets of blocks: what fits, what makes room, what a rollback gives back. */
import { KvCache, Tensor } from '../../../lib';
import type { KvCacheOptions, KvSequence } from '../../../lib';
import { appendRandom, attended, KINDS } from '../../support/caches';
import { Random } from '../../support/random';

const random = new Random(3);

function cacheOf(blocks: number, options: Partial<KvCacheOptions> = {}): KvCache {
  const shape = { layers: 2, kvHeads: 1, headDim: 4, capacity: 1024, sequences: 8 };
  return new KvCache({ ...shape, budgetTokens: 64 * blocks, ...options });
}

/** A sequence of so many tokens. */
function filled(cache: KvCache, tokens: number): KvSequence {
  const sequence = cache.sequence();
  appendRandom(sequence, random, tokens);
  return sequence;
}

function ids(text: number, count: number): number[] {
  return Array.from({ length: count }, (_, i) => 1000 * text + i);
}

/** Shares a text of so many tokens, whose sequence then goes. */
function shared(cache: KvCache, text: number, tokens: number): number[] {
  const sequence = filled(cache, tokens);
  sequence.share(ids(text, tokens));
  sequence.dispose();
  return ids(text, tokens);
}

test('a cache holds as many blocks as its budget says, and no more than it can use', () => {
  const all = new KvCache({ layers: 2, kvHeads: 1, headDim: 4, capacity: 64, sequences: 4 });
  const half = cacheOf(2, { capacity: 64, sequences: 4 });
  expect(half.bytes).toBe(all.bytes / 2);
  expect(half.freeTokens).toBe(128);
  const most = cacheOf(1000, { capacity: 64, sequences: 4, prefixTokens: 0 });
  expect(most.bytes).toBe(all.bytes);
  expect(cacheOf(2, { budgetTokens: 65 }).freeTokens).toBe(128);
});

test('a step fits while its blocks are free, to the token', () => {
  const cache = cacheOf(4);
  const [a, b] = [filled(cache, 60), filled(cache, 64)];
  expect(cache.freeTokens).toBe(128);
  const entries = (...tokens: number[]) => [
    { sequence: a, tokens: tokens[0] },
    { sequence: b, tokens: tokens[1] },
  ];
  expect(cache.fits(entries(4, 128))).toBe(true);
  expect(cache.fits(entries(68, 64))).toBe(true);
  expect(cache.fits(entries(4, 129))).toBe(false);
  expect(cache.fits(entries(69, 64))).toBe(false);
  expect(cache.fits([{ sequence: a, tokens: 132 }])).toBe(true);
  expect(cache.fits([{ sequence: a, tokens: 133 }])).toBe(false);
  // The sequence's own end.
  const end = filled(cacheOf(100), 1000);
  expect([24, 25].map((tokens) => end.cache.fits([{ sequence: end, tokens }]))).toEqual([
    true,
    false,
  ]);
});

test('of those that write a block they share, the last needs no copy', () => {
  const cache = cacheOf(3);
  const a = filled(cache, 10);
  const [b, c] = [a.fork(), a.fork()];
  const step = (...sequences: KvSequence[]) =>
    sequences.map((sequence) => ({ sequence, tokens: 1 }));
  expect(cache.fits(step(a, b, c))).toBe(true);
  const d = a.fork();
  expect(cache.fits(step(a, b, c, d))).toBe(false);
  expect(cache.fits(step(a, b))).toBe(true);
  expect(cache.fits(step(a, b, c))).toBe(false);
  d.dispose();
  for (const sequence of [a, b, c]) appendRandom(sequence, random, 1);
  expect(cache.freeTokens).toBe(0);
});

test('prefixes that nobody holds make room, the least recently used first', () => {
  const cache = cacheOf(6);
  const [first, second, third] = [1, 2, 3].map((text) => shared(cache, text, 128));
  expect([cache.sharedTokens, cache.freeTokens]).toEqual([384, 384]);
  cache.lookup(first).dispose();
  const sequence = filled(cache, 65);
  // The second text is used longest ago: leaf, then root.
  expect([first, second, third].map((text) => cache.sharedPrefix(text))).toEqual([128, 0, 128]);
  appendRandom(sequence, random, 64);
  expect([first, second, third].map((text) => cache.sharedPrefix(text))).toEqual([128, 0, 64]);
});

test('asking what is shared is no use of it', () => {
  const cache = cacheOf(2);
  const [first, second] = [1, 2].map((text) => shared(cache, text, 64));
  expect(cache.sharedPrefix(first)).toBe(64);
  filled(cache, 1);
  expect([first, second].map((text) => cache.sharedPrefix(text))).toEqual([0, 64]);
});

test('prefixes that sequences hold stay, and make no room', () => {
  const cache = cacheOf(3);
  const first = shared(cache, 1, 64);
  const reader = cache.lookup(first);
  const second = shared(cache, 2, 64);
  expect(cache.freeTokens).toBe(128);
  const writer = filled(cache, 128);
  expect([first, second].map((text) => cache.sharedPrefix(text))).toEqual([64, 0]);
  expect(cache.fits([{ sequence: writer, tokens: 1 }])).toBe(false);
  reader.dispose();
  expect(cache.fits([{ sequence: writer, tokens: 1 }])).toBe(true);
  appendRandom(writer, random, 1);
  expect(cache.sharedTokens).toBe(0);
});

test('a prefix whose beginning a window has left makes room with what it leads to', () => {
  const cache = cacheOf(5, { window: 10, capacity: 128, sequences: 2 });
  const text = shared(cache, 1, 128);
  const reader = cache.lookup(text);
  // The ring turns over the first block: the tree alone holds it, and the second one is held by both.
  appendRandom(reader, random, 60);
  appendRandom(reader, random, 60);
  expect(cache.freeTokens).toBe(128);
  const other = filled(cache, 120);
  expect([cache.freeTokens, cache.sharedPrefix(text)]).toEqual([0, 0]);
  expect(attended(other)).toBeTruthy();
});

test.each(['f32', 'q8'])('a rollback gives blocks back: %s', (dtype) => {
  const cache = cacheOf(8, { dtype: dtype as 'f32', sequences: 2 });
  const sequence = filled(cache, 64 * 6);
  expect(cache.freeTokens).toBe(128);
  sequence.truncate(130);
  expect(cache.freeTokens).toBe(64 * (dtype === 'f32' ? 5 : 6));
  sequence.truncate(0);
  expect(cache.freeTokens).toBe(512);
});

test('a dropped step gives its blocks back', () => {
  const cache = cacheOf(4, { layers: [{ window: 20 }, {}], slack: 10 });
  expect(cache.groups).toHaveLength(2);
  const sequence = filled(cache, 60);
  const free = cache.freeTokens;
  sequence.append(0, Tensor.zeros([10, 1, 4]), Tensor.zeros([10, 1, 4]));
  expect(cache.freeTokens).toBe(free - 64);
  sequence.truncate(60);
  expect(cache.freeTokens).toBe(free);
});

test('the layers of a step that has begun find their blocks, whoever comes between', () => {
  const cache = cacheOf(2, { layers: [{ window: 20 }, {}], slack: 10 });
  const [a, b] = [filled(cache, 60), cache.sequence()];
  const rows = () => Tensor.zeros([10, 1, 4]);
  a.append(0, rows(), rows());
  expect(() => b.append(1, rows(), rows())).toThrow('free blocks');
  a.append(1, rows(), rows());
  expect([a.length, b.length]).toEqual([70, 0]);
});

describe.each(Object.keys(KINDS))('shared blocks leave a cache as bytes: %s', (kind) => {
  const text = ids(1, 190);
  const make = (options: Partial<KvCacheOptions> = {}) =>
    new KvCache({ ...KINDS[kind](), prefixTokens: 512, ...options });
  const begin = (cache: KvCache): KvSequence => {
    const sequence = cache.lookup(text);
    appendRandom(sequence, new Random(8), 190 - sequence.length);
    return sequence;
  };
  const source = make();
  const whole = source.sequence();
  // Not beyond what the layers with windows hold.
  const tokens = Math.min(190, ...source.groups.map(({ geometry }) => geometry.capacity));
  appendRandom(whole, new Random(5), tokens);
  const blocks = source.exportPrefix(text, 0, whole.share(text.slice(0, tokens)) / 64);

  test('and come into another, where attention over them is the same', () => {
    const cache = make({ budgetTokens: 640 });
    expect(cache.prefixLayout).toBe(source.prefixLayout);
    expect(cache.importPrefix(text, 0, blocks.slice(0, 1))).toBe(64);
    expect(cache.importPrefix(text, 0, blocks)).toBe(64 * blocks.length);
    expect(cache.importPrefix(text, 1, blocks.slice(1))).toBe(64 * blocks.length);
    expect(attended(begin(cache))).toBe(attended(begin(source)));
    expect(cache.exportPrefix(text, 0, blocks.length)).toEqual(blocks);
  });

  test('not where what comes before is missing', () => {
    const cache = make();
    expect(cache.importPrefix(text, 1, blocks.slice(1))).toBe(0);
    expect(cache.sharedTokens).toBe(0);
  });

  test('nor where any of them is another than it should be', () => {
    const cache = make();
    const wrong = [...blocks.slice(0, -1), blocks[0]];
    if (blocks.length === 1) return;
    expect(() => cache.importPrefix(text, 0, wrong)).toThrow('follows from these tokens');
    expect([cache.sharedTokens, cache.usedBytes]).toEqual([0, 0]);
  });
});

test('of blocks that come in, as many stay as there is room for', () => {
  const source = cacheOf(8);
  const text = shared(source, 1, 256);
  const blocks = source.exportPrefix(text, 0, 4);
  const cache = cacheOf(5);
  const old = shared(cache, 2, 128);
  const writer = filled(cache, 120);
  expect(cache.importPrefix(text, 0, blocks)).toBe(192);
  expect(cache.sharedPrefix(old)).toBe(0);
  appendRandom(writer, random, 100);
  expect(cache.sharedPrefix(text)).toBe(64);
  // The rest of a prefix does not push out its beginning.
  expect(cache.importPrefix(text, 1, blocks.slice(1))).toBe(64);
  expect(cacheOf(8, { prefixTokens: 128 }).importPrefix(text, 0, blocks)).toBe(128);
});
