/** Snapshots of real sequences: what comes back is the same to the bit, and whatever is refused changes nothing. */
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { PassThrough, Readable, Writable } from 'node:stream';
import { attentionAsync, FileBlockStore, KvCache, Rope, Tensor } from '../../../lib';
import type { KvSequence } from '../../../lib';
import { appendRandom, attended, filled, KINDS } from '../../support/caches';
import { printed } from '../../support/child';
import { Random } from '../../support/random';
import { bodyAt, headerOf, reseal, withHeader } from '../../support/snapshots';
import { errorOf, rejectionOf } from '../refusals';

const kinds = Object.keys(KINDS);
/** Nothing, less than a block, whole blocks, and lengths at which windows have wrapped. */
const LENGTHS: Record<string, number[]> = { short: [0, 1, 63, 64, 130], long: [333, 1000] };

function lengthsOf(kind: string): number[] {
  const { window } = KINDS[kind]();
  return window === undefined ? LENGTHS.short : [...LENGTHS.short, ...LENGTHS.long];
}

let folder: string;
beforeAll(() => {
  folder = mkdtempSync(join(tmpdir(), 'gqa-snapshots-'));
});
afterAll(() => rmSync(folder, { recursive: true }));

/** Both go on alike: what they hold is the same, and so is where they stand. */
function expectSame(a: KvSequence, b: KvSequence, random = new Random(3)): void {
  expect([b.length, b.start]).toEqual([a.length, a.start]);
  const seed = random.int(0, 1e9);
  const cut = Math.max(0, a.length - random.int(0, 40));
  for (const sequence of [a, b]) {
    if (sequence.length > 0) sequence.truncate(cut);
    appendRandom(sequence, new Random(seed), 30);
  }
  expect(attended(b)).toBe(attended(a));
}

describe.each(kinds)('%s', (kind) => {
  test.each(lengthsOf(kind))('%i tokens come back in another cache', (tokens) => {
    const { sequence } = filled(kind, tokens);
    const bytes = sequence.snapshot();
    const restored = new KvCache(KINDS[kind]()).restore(bytes);
    if (tokens > 0) expect(attended(restored)).toBe(attended(sequence));
    expect(Buffer.from(restored.snapshot()).equals(bytes)).toBe(true);
    expectSame(sequence, restored);
  });

  test('through a file, a stream and a store', async () => {
    const { cache, sequence } = filled(kind, 170);
    const bytes = sequence.snapshot();
    const path = join(folder, 'snapshot');
    expect(await sequence.snapshotTo(path)).toBe(bytes.length);
    expect(readFileSync(path).equals(bytes)).toBe(true);
    const fromFile = await cache.restoreFrom(path);
    const stream = new PassThrough({ highWaterMark: 100 });
    const other = new KvCache(KINDS[kind]());
    const [fromStream] = await Promise.all([
      other.restoreFrom(stream),
      sequence.snapshotTo(stream),
    ]);
    const store = new FileBlockStore(join(folder, kind));
    await sequence.saveTo(store, 'name');
    const fromStore = await other.loadFrom(store, 'name');
    for (const restored of [fromFile, fromStream, fromStore]) {
      expect(Buffer.from(restored.snapshot()).equals(bytes)).toBe(true);
    }
  });

  test('after rollbacks, and of a fork', () => {
    const { cache, sequence } = filled(kind, 150);
    sequence.truncate(115);
    appendRandom(sequence, new Random(5), 9);
    const fork = sequence.fork();
    appendRandom(fork, new Random(6), 20);
    appendRandom(sequence, new Random(8), 3);
    const other = new KvCache(KINDS[kind]());
    const [a, b] = [other.restore(sequence.snapshot()), other.restore(fork.snapshot())];
    expect(attended(a)).toBe(attended(sequence));
    expect(attended(b)).toBe(attended(fork));
    sequence.dispose();
    expectSame(fork, b);
    cache.dispose();
    other.dispose();
  });

  test('a store is given each block once', async () => {
    const { cache, sequence } = filled(kind, 130);
    const store = new FileBlockStore(join(folder, `once ${kind}`));
    const first = await sequence.saveTo(store, 'name');
    expect(first.written).toBe(first.blocks);
    expect((await sequence.saveTo(store, 'name')).written).toBe(0);
    const fork = sequence.fork();
    expect((await fork.saveTo(store, 'fork')).written).toBe(0);
    appendRandom(sequence, new Random(5), 3);
    const { written } = await sequence.saveTo(store, 'name');
    // The unfinished block of each group: a window's sinks are whole.
    expect(written).toBe(cache.groups.length);
    const loaded = await new KvCache(KINDS[kind]()).loadFrom(store, 'name');
    expect(attended(loaded)).toBe(attended(sequence));
    expect((await loaded.saveTo(store, 'again')).written).toBe(0);
    // Others in the place of what was saved.
    sequence.truncate(100);
    appendRandom(sequence, new Random(9), 40);
    await sequence.saveTo(store, 'name');
    fork.dispose();
    const anew = await cache.loadFrom(store, 'name');
    expectSame(sequence, anew);
  });
});

test('from one backend to the other, and back', () => {
  const ours = kinds.map((kind) => Buffer.from(filled(kind, 170).sequence.snapshot()));
  const path = join(folder, 'snapshots.json');
  writeFileSync(path, JSON.stringify(ours.map((bytes) => bytes.toString('base64'))));
  const program = `
    const { filled, KINDS } = require(${JSON.stringify(join(__dirname, '../../support/caches'))});
    const given = require(${JSON.stringify(path)});
    console.log(JSON.stringify(Object.keys(KINDS).map((kind, i) => {
      const { cache, sequence } = filled(kind, 170);
      const restored = cache.restore(Buffer.from(given[i], 'base64'));
      return [sequence, restored].map((s) => Buffer.from(s.snapshot()).toString('base64'));
    })));`;
  const answers = JSON.parse(printed(program, { GQA_BACKEND: 'js', GQA_ISA: '' })) as string[][];
  answers.forEach(([theirs, back], i) => {
    expect(back).toBe(ours[i].toString('base64'));
    const restored = new KvCache(KINDS[kinds[i]]()).restore(Buffer.from(theirs, 'base64'));
    expect(Buffer.from(restored.snapshot()).toString('base64')).toBe(theirs);
  });
});

test('a sequence begun with a shared prefix', () => {
  const options = { ...KINDS.q8(), prefixTokens: 128 };
  const cache = new KvCache(options);
  const sequence = cache.sequence();
  appendRandom(sequence, new Random(1), 150);
  const ids = Array.from({ length: 150 }, (_, i) => i);
  expect(sequence.share(ids)).toBe(128);
  const found = cache.lookup(ids);
  expect(found.length).toBe(128);
  const restored = cache.restore(found.snapshot());
  expect(attended(restored)).toBe(attended(found));
  expectSame(found, restored);
});

test.each(['f32', 'q8'])('%s: a pruned tree is saved anew', async (kind) => {
  const { cache, sequence } = filled(kind, 50);
  const store = new FileBlockStore(join(folder, `tree ${kind}`));
  // Two branches of 30 tokens, beyond the end of a block, of which the second stays.
  const parents = Array.from({ length: 60 }, (_, i) => (i === 0 || i === 30 ? -1 : i - 1));
  const step = cache.step([{ sequence, tokens: 60, tree: parents }]);
  const random = new Random(4);
  for (let layer = 0; layer < cache.layers; layer++) {
    const rows = () => Tensor.from(random.normals(60 * 16), [60, 2, 8]);
    step.append(layer, rows(), rows());
  }
  await sequence.saveTo(store, 'name');
  step.keep(
    0,
    Array.from({ length: 30 }, (_, i) => 30 + i),
  );
  expect(sequence).toHaveLength(80);
  const { written } = await sequence.saveTo(store, 'name');
  expect(written).toBeGreaterThan(0);
  const loaded = await cache.loadFrom(store, 'name');
  expect(attended(loaded)).toBe(attended(sequence));
  expect(Buffer.from(loaded.snapshot()).equals(sequence.snapshot())).toBe(true);
});

describe('another cache', () => {
  const refused = (cache: KvCache, bytes: Uint8Array) => {
    const before = [cache.usedBytes, cache.highWaterBytes];
    const error = errorOf(() => cache.restore(bytes));
    expect([cache.usedBytes, cache.highWaterBytes]).toEqual(before);
    return error;
  };

  test('with more room, and with less', () => {
    const { sequence } = filled('f32', 130);
    const bytes = sequence.snapshot();
    const cache = (capacity: number) => new KvCache({ ...KINDS.f32(), capacity });
    for (const capacity of [130, 131, 1000]) {
      expect(attended(cache(capacity).restore(bytes))).toBe(attended(sequence));
    }
    expect(refused(cache(129), bytes)).toBe('SNAPSHOT_MISMATCH snapshot.length');
    expect(refused(cache(40), bytes)).toBe('SNAPSHOT_MISMATCH snapshot.groups[0].blockTokens');
  });

  test('with a window that holds more, or less', () => {
    const kind = 'bf16, windowed';
    const cache = (capacity: number) => new KvCache({ ...KINDS[kind](), capacity });
    const whole = filled(kind, 190).sequence;
    for (const capacity of [190, 300]) {
      expect(attended(cache(capacity).restore(whole.snapshot()))).toBe(attended(whole));
    }
    const wrapped = filled(kind, 500).sequence.snapshot();
    for (const capacity of [199, 201, 133, 1000]) {
      expect(refused(cache(capacity), wrapped)).toBe('SNAPSHOT_MISMATCH snapshot.start');
    }
  });

  test.each([
    ['model', { model: 'another' }],
    ['layers.length', { layers: 3 }],
    ['layers[0].kvHeads', { kvHeads: 1 }],
    ['layers[0].headDim', { headDim: 4 }],
    ['layers[0].valueDim', { valueDim: 4 }],
    ['layers[0].keyDtype', { dtype: 'f16' }],
    ['layers[0].valueDtype', { dtype: { k: 'f32', v: 'bf16' } }],
    ['layers[0].rotateKeys', { rotate: true }],
    ['layers[0].rotateValues', { rotate: { k: false, v: true } }],
    ['layers[0].rope', { positions: 'cache', rope: new Rope({ headDim: 8 }) }],
    ['groups[0].window', { window: 100 }],
  ])('with another %s', (what, change) => {
    const bytes = filled('f32', 20).sequence.snapshot();
    const cache = new KvCache({ ...KINDS.f32(), ...(change as object) });
    expect(refused(cache, bytes)).toBe(`SNAPSHOT_MISMATCH snapshot.${what}`);
  });

  test('with another rotation, or the same made anew', () => {
    const kind = 'positions of its own';
    const bytes = filled(kind, 20).sequence.snapshot();
    const cache = (theta: number) =>
      new KvCache({ ...KINDS[kind](), rope: new Rope({ headDim: 8, theta }) });
    expect(refused(cache(500_000), bytes)).toBe('SNAPSHOT_MISMATCH snapshot.ropes[0]');
    expect(cache(10_000).restore(bytes)).toHaveLength(20);
  });

  test('that keeps more tokens in floats', () => {
    const bytes = filled('q8', 20).sequence.snapshot();
    const cache = new KvCache({ ...KINDS.q8(), recent: 64 });
    expect(refused(cache, bytes)).toBe('SNAPSHOT_MISMATCH snapshot.groups[0].recent');
  });
});

describe('a cache that is not ready', () => {
  test('no sequence is free', async () => {
    const { cache, sequence } = filled('f32', 70);
    const bytes = sequence.snapshot();
    const others = [cache.sequence(), cache.sequence()];
    expect(errorOf(() => cache.restore(bytes))).toBe('CAPACITY_EXCEEDED cache');
    const stream = Readable.from([bytes]);
    expect(await rejectionOf(cache.restoreFrom(stream))).toBe('CAPACITY_EXCEEDED cache');
    others[0].dispose();
    expect(attended(cache.restore(bytes))).toBe(attended(sequence));
  });

  test('busy with attention', async () => {
    const { cache, sequence } = filled('f32', 70);
    const bytes = sequence.snapshot();
    const store = new FileBlockStore(join(folder, 'busy'));
    const running = attentionAsync(Tensor.zeros([1, 1, 2, 8]), sequence.layer(0));
    expect(errorOf(() => cache.restore(bytes))).toBe('BUSY cache');
    expect(errorOf(() => sequence.snapshot())).toBe('BUSY sequence');
    for (const promise of [
      cache.restoreFrom(Readable.from([bytes])),
      cache.loadFrom(store, 'name'),
    ]) {
      expect(await rejectionOf(promise)).toBe('BUSY cache');
    }
    await running;
    expect(attended(cache.restore(bytes))).toBe(attended(sequence));
  });

  test('disposed', async () => {
    const { cache, sequence } = filled('f32', 70);
    const bytes = sequence.snapshot();
    const store = new FileBlockStore(join(folder, 'disposed'));
    cache.dispose();
    expect(errorOf(() => cache.restore(bytes))).toBe('DISPOSED cache');
    expect(errorOf(() => sequence.snapshot())).toBe('DISPOSED sequence');
    expect(await rejectionOf(sequence.snapshotTo('x'))).toBe('DISPOSED sequence');
    expect(await rejectionOf(sequence.saveTo(store, 'x'))).toBe('DISPOSED sequence');
    expect(await rejectionOf(cache.restoreFrom('x'))).toBe('DISPOSED cache');
    expect(await rejectionOf(cache.loadFrom(store, 'x'))).toBe('DISPOSED cache');
  });

  test('in the middle of a step', async () => {
    const { sequence } = filled('f32', 7);
    sequence.append(0, Tensor.zeros([1, 2, 8]), Tensor.zeros([1, 2, 8]));
    expect(errorOf(() => sequence.snapshot())).toBe('LAYERS_UNEVEN sequence');
    expect(await rejectionOf(sequence.snapshotTo('x'))).toBe('LAYERS_UNEVEN sequence');
    sequence.truncate(7);
    expect(sequence.snapshot().length).toBeGreaterThan(0);
  });

  test('arguments', async () => {
    const { cache, sequence } = filled('f32', 7);
    for (const wrong of [undefined, null, 'path', [1], new Float32Array(100)] as never[]) {
      expect(errorOf(() => cache.restore(wrong))).toBe('INVALID_ARGUMENT bytes');
    }
    expect(await rejectionOf(cache.restoreFrom(7 as never))).toBe('INVALID_ARGUMENT source');
    expect(await rejectionOf(sequence.snapshotTo(7 as never))).toBe('INVALID_ARGUMENT target');
    expect(await rejectionOf(sequence.saveTo(7 as never, 'x'))).toBe('INVALID_ARGUMENT store');
    expect(await rejectionOf(cache.loadFrom({} as never, 'x'))).toBe('INVALID_ARGUMENT store');
    appendRandom(sequence, new Random(1), 1);
    expect(sequence).toHaveLength(8);
  });
});

describe('meanwhile', () => {
  test('a sequence that is being saved does not change, others may', async () => {
    const { cache, sequence } = filled('bf16, windowed', 300);
    const bytes = sequence.snapshot();
    const other = cache.sequence();
    const chunks: Buffer[] = [];
    const slow = new Writable({
      highWaterMark: 1,
      write: (chunk: Buffer, _, done) => {
        chunks.push(chunk);
        appendRandom(other, new Random(1), 40);
        setTimeout(done, 1);
      },
    });
    const saving = sequence.snapshotTo(slow);
    const refusals = [
      () => appendRandom(sequence, new Random(1), 1),
      () => sequence.truncate(299),
      () => sequence.fork(),
      () => sequence.dispose(),
    ];
    for (const refusal of refusals) expect(errorOf(refusal)).toBe('BUSY sequence');
    expect(errorOf(() => cache.dispose())).toBe('BUSY cache');
    expect(await rejectionOf(sequence.snapshotTo('x'))).toBe('BUSY sequence');
    await saving;
    expect(Buffer.concat(chunks).equals(bytes)).toBe(true);
    expect(other.length).toBeGreaterThan(40);
    expectSame(sequence, cache.restore(bytes));
    cache.dispose();
  });

  test('a cache can be used while a sequence is restored into it', async () => {
    const { cache, sequence } = filled('q8, windowed, recent', 300);
    const bytes = sequence.snapshot();
    const stream = Readable.from(
      (function* () {
        for (let at = 0; at < bytes.length; at += 5000) {
          appendRandom(sequence, new Random(at), 7);
          yield bytes.subarray(at, at + 5000);
        }
      })(),
    );
    const restored = await cache.restoreFrom(stream);
    expect(Buffer.from(restored.snapshot()).equals(bytes)).toBe(true);
  });

  test('a cache disposed while a sequence is restored into it', async () => {
    const { cache, sequence } = filled('f32', 150);
    const bytes = Buffer.from(sequence.snapshot());
    const stream = new PassThrough();
    const restoring = cache.restoreFrom(stream);
    stream.write(bytes.subarray(0, bytes.length - 100));
    await new Promise(setImmediate);
    cache.dispose();
    stream.end(bytes.subarray(bytes.length - 100));
    expect(await rejectionOf(restoring)).toBe('DISPOSED cache');
  });

  test('attention under way while a restore fails', async () => {
    const { cache, sequence } = filled('f32', 150);
    const bytes = Buffer.from(sequence.snapshot());
    const used = cache.usedBytes;
    const stream = new PassThrough();
    const restoring = cache.restoreFrom(stream);
    stream.write(bytes.subarray(0, bytes.length - 100));
    await new Promise(setImmediate);
    expect(cache.usedBytes).toBeGreaterThan(used);
    const running = attentionAsync(Tensor.zeros([1, 1, 2, 8]), sequence.layer(0));
    stream.destroy(new Error('cut'));
    expect(await rejectionOf(restoring)).toBe('STORE_FAILED source');
    await running;
    expect(cache.usedBytes).toBe(used);
  });
});

describe('damage', () => {
  test('every bit of a snapshot matters', () => {
    const options = { layers: 1, kvHeads: 1, headDim: 2, capacity: 16, sequences: 2 };
    const cache = new KvCache(options);
    const sequence = cache.sequence();
    appendRandom(sequence, new Random(1), 3);
    const bytes = sequence.snapshot();
    const before = [attended(sequence), cache.usedBytes, cache.highWaterBytes];
    for (let bit = 0; bit < bytes.length * 8; bit++) {
      bytes[bit >> 3] ^= 1 << (bit & 7);
      expect(errorOf(() => cache.restore(bytes))).toBe('INVALID_SNAPSHOT snapshot');
      bytes[bit >> 3] ^= 1 << (bit & 7);
    }
    for (let length = 0; length < bytes.length; length++) {
      const cut = bytes.subarray(0, length);
      expect(errorOf(() => cache.restore(cut))).toBe('INVALID_SNAPSHOT snapshot');
    }
    const longer = Buffer.concat([bytes, Buffer.alloc(1)]);
    expect(errorOf(() => cache.restore(longer))).toBe('INVALID_SNAPSHOT snapshot');
    expect([attended(sequence), cache.usedBytes, cache.highWaterBytes]).toEqual(before);
    expect(cache.restore(bytes)).toHaveLength(3);
  });

  test.each([
    ['"length":300', '"length":301'],
    ['"length":300', '"length":3000000000'],
    ['"peak":300', '"peak":9007199254740991'],
    ['"peak":300', '"peak":3000'],
    ['"tailFrom":1', '"tailFrom":2'],
    ['"tailFrom":1', '"tailFrom":9007199254740991'],
    ['"tailFrom":1', '"tailFrom":0'],
    ['"floatSinks":1', '"floatSinks":0'],
    ['"floatSinks":1', '"floatSinks":1000000000'],
    ['[0,1,0,64]', '[0,0,0,64]'],
    ['[0,1,0,64]', '[0,1,99,64]'],
  ])('a header with %s as %s, its checksums sound', (from, to) => {
    const { cache, sequence } = filled('q8, windowed, recent', 300);
    const bytes = sequence.snapshot();
    const used = cache.usedBytes;
    expect(headerOf(bytes)).toContain(from);
    const hostile = withHeader(bytes, headerOf(bytes).replace(from, to));
    expect(errorOf(() => cache.restore(hostile))).toMatch(
      /^(INVALID_SNAPSHOT|SNAPSHOT_MISMATCH) snapshot/,
    );
    expect(cache.usedBytes).toBe(used);
  });

  test.each(kinds)('%s: any bytes for numbers and scales', (kind) => {
    const { cache, sequence } = filled(kind, 170);
    const bytes = sequence.snapshot();
    const bits = attended(sequence);
    const [from, to] = [bodyAt(bytes), bytes.length - 32];
    const random = new Random(1);
    const patterns = [() => 0xff, () => 0x7f, () => 0x7c, () => 0, () => random.int(0, 255)];
    for (const pattern of patterns) {
      for (let i = from; i < to; i++) bytes[i] = pattern();
      reseal(bytes);
      const restored = cache.restore(bytes);
      attended(restored);
      appendRandom(restored, random, 20);
      restored.truncate(150);
      attended(restored);
      restored.dispose();
    }
    expect(attended(sequence)).toBe(bits);
  });
});
