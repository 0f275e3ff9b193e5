/** The bytes of snapshots: what was written is read, and nothing else is. */
import { Readable, Writable } from 'node:stream';
import { planSnapshot, restoreBytes, writeAll } from '../../../lib/kv-cache/snapshot/codec';
import { MAX_HEADER_BYTES } from '../../../lib/kv-cache/snapshot/header';
import type { CacheFingerprint } from '../../../lib/kv-cache/snapshot/contents';
import { restoreSnapshotFrom, writeSnapshotTo } from '../../../lib/kv-cache/snapshot/streams';
import { FINGERPRINT, PlainCache, PlainSource } from '../../support/plain-sequences';
import { bodyAt, DIGEST_BYTES, headerOf, sha256, withHeader } from '../../support/snapshots';
import { errorOf, rejectionOf } from '../refusals';

function snapshot(source: PlainSource): Uint8Array {
  return writeAll(planSnapshot(source));
}

/** What restoring throws, from an array and from a stream alike; the cache must have its blocks back. */
async function refusalOf(bytes: Uint8Array, cache = new PlainCache()): Promise<string> {
  const error = errorOf(() => restoreBytes(cache, bytes));
  expect(cache.begun).toBe(cache.aborted);
  const stream = Readable.from([Buffer.from(bytes)]);
  expect(await rejectionOf(restoreSnapshotFrom(cache, stream))).toBe(error);
  expect(cache.begun).toBe(cache.aborted);
  return error;
}

test.each([0, 1, 16, 50])('%i tokens come back', async (length) => {
  const source = new PlainSource(length);
  const bytes = snapshot(source);
  expect(restoreBytes(new PlainCache(), bytes)).toEqual(source.whole);
  // Chunks of any length.
  for (const size of [1, 7, 4096]) {
    const chunks: Buffer[] = [];
    for (let at = 0; at < bytes.length; at += size) {
      chunks.push(Buffer.from(bytes.subarray(at, at + size)), Buffer.alloc(0));
    }
    const stream = Readable.from(chunks);
    expect(await restoreSnapshotFrom(new PlainCache(), stream)).toEqual(source.whole);
  }
});

test('bytes are the same from an array and through a stream', async () => {
  const chunks: Uint8Array[] = [];
  const stream = new Writable({
    highWaterMark: 1,
    write: (chunk: Uint8Array, _, done) => {
      chunks.push(chunk);
      setImmediate(done);
    },
  });
  const source = new PlainSource(50);
  const written = await writeSnapshotTo(source, stream);
  const bytes = snapshot(source);
  expect(Buffer.concat(chunks).equals(bytes)).toBe(true);
  expect(written).toBe(bytes.length);
});

test('the layout is that of docs/snapshots.md', () => {
  const source = new PlainSource(20);
  const bytes = Buffer.from(snapshot(source));
  expect(bytes.toString('latin1', 0, 8)).toBe('\x89gqaS\r\n\x1a');
  expect(bytes.readUInt32LE(8)).toBe(1);
  const header = JSON.parse(headerOf(bytes));
  expect(header.model).toBe('a model');
  expect(header.length).toBe(20);
  expect(header.blocks).toEqual([
    [0, 0, 0, 16],
    [0, 0, 1, 4],
    [1, 0, 0, 16],
    [1, 1, 1, 4],
  ]);
  const body = bodyAt(bytes);
  expect(
    bytes
      .subarray(body - DIGEST_BYTES, body)
      .equals(sha256(bytes.subarray(0, body - DIGEST_BYTES))),
  ).toBe(true);
  const end = bytes.length - DIGEST_BYTES;
  expect(bytes.subarray(body, end).equals(Buffer.concat(source.contents))).toBe(true);
  expect(bytes.subarray(end).equals(sha256(bytes.subarray(0, end)))).toBe(true);
});

test('every flipped bit is refused', async () => {
  const bytes = snapshot(new PlainSource(20));
  for (let bit = 0; bit < bytes.length * 8; bit++) {
    bytes[bit >> 3] ^= 1 << (bit & 7);
    expect(await refusalOf(bytes)).toBe('INVALID_SNAPSHOT snapshot');
    bytes[bit >> 3] ^= 1 << (bit & 7);
  }
  expect(errorOf(() => restoreBytes(new PlainCache(), bytes))).toBe('nothing was thrown');
});

test('every truncation is refused, and every byte behind the end', async () => {
  const bytes = snapshot(new PlainSource(20));
  for (let length = 0; length < bytes.length; length++) {
    expect(await refusalOf(bytes.subarray(0, length))).toBe('INVALID_SNAPSHOT snapshot');
  }
  expect(await refusalOf(Buffer.concat([bytes, Buffer.alloc(1)]))).toBe(
    'INVALID_SNAPSHOT snapshot',
  );
  expect(await refusalOf(Buffer.concat([bytes, bytes]))).toBe('INVALID_SNAPSHOT snapshot');
});

test('bytes that never were a snapshot', async () => {
  for (const bytes of [new Uint8Array(0), new Uint8Array(1000), Buffer.from('{"model":""}')]) {
    expect(await refusalOf(bytes)).toBe('INVALID_SNAPSHOT snapshot');
  }
});

test('another version, a manifest, a header that is too long: with sound checksums', async () => {
  const bytes = snapshot(new PlainSource(20));
  const version = Buffer.from(bytes);
  version.writeUInt32LE(2, 8);
  expect(await refusalOf(withHeader(version, headerOf(bytes)))).toBe('INVALID_SNAPSHOT snapshot');
  const kind = Buffer.from(bytes);
  kind[4] = 'M'.charCodeAt(0);
  expect(await refusalOf(withHeader(kind, headerOf(bytes)))).toBe('INVALID_SNAPSHOT snapshot');
  for (const claimed of [MAX_HEADER_BYTES + 1, 2 ** 32 - 1, 0, headerOf(bytes).length - 1]) {
    const hostile = withHeader(bytes, headerOf(bytes), claimed);
    expect(await refusalOf(hostile)).toBe('INVALID_SNAPSHOT snapshot');
  }
});

/** A header in which one piece of text is another. */
type Edit = [from: string, to: string];
const INVALID: Edit[] = [
  ['"length":20', '"length":21'],
  ['"length":20', '"length":0'],
  ['"length":20', '"length":-1'],
  ['"length":20', '"length":1e400'],
  ['"length":20', '"length":"20"'],
  ['"length":20', '"length":20.5'],
  ['"length":20', '"length":2e1'],
  ['"length":20', '"length":null'],
  ['"length":20', '"length":20,"length":20'],
  ['"length":20', '"length": 20'],
  ['"length":20', '"length":20,"more":1'],
  ['"length":20,', ''],
  ['[0,0,0,16]', '[0,0,0,15]'],
  ['[0,0,0,16]', '[0,0,0,9007199254740991]'],
  ['[0,0,0,16]', '[0,0,0,9007199254740992]'],
  ['[0,0,0,16]', '[0,0,0,-16]'],
  ['[0,0,0,16]', '[0,0,0]'],
  ['[0,0,0,16]', '[0,0,0,16,0]'],
  ['[0,0,0,16]', '[0,2,0,16]'],
  ['[0,0,0,16]', '[7,0,0,16]'],
  ['[0,0,0,16]', '[0,0,99999999,16]'],
  ['[0,0,0,16]', '{"group":0}'],
  ['[0,0,0,16],', ''],
  ['[0,0,0,16]', '[0,0,0,16],[0,0,0,16]'],
  ['"peak":20', '"peak":19'],
  ['"start":0', '"start":-1'],
  ['"start":0', '"start":30'],
  ['"start":0,', ''],
  ['"tailFrom":0', '"tailFrom":"0"'],
  ['"floatSinks":0', '"floatSinks":true'],
  ['"held":[', '"held":[{"peak":20,"start":0,"tailFrom":0,"floatSinks":0},'],
  ['"keyDtype":"q8"', '"keyDtype":"q9"'],
  ['"keyDtype":"q8"', '"keyDtype":["q8"]'],
  ['"rotateKeys":true', '"rotateKeys":1'],
  ['"window":20', '"window":0'],
  ['"window":20', '"window":Infinity'],
  ['"kvHeads":1', '"kvHeads":0'],
  ['"kvHeads":1', '"kvHeads":1e308'],
  ['"rope":0', '"rope":-1'],
  ['"ropes":[[1,0.5]]', '"ropes":[[1,"0.5"]]'],
  ['"ropes":[[1,0.5]]', '"ropes":null'],
  ['"model":"a model"', '"model":7'],
  ['"model":"a model"', '"__proto__":{"model":"a model"}'],
  ['"groups":[', '"groups":[[],'],
  ['"layers":[', '"layers":{"0":['],
  ['{', '['],
  ['{', '\ufeff{'],
];
test.each(INVALID)('a header with %s as %s, its checksums sound, is invalid', async (from, to) => {
  const bytes = snapshot(new PlainSource(20));
  const header = headerOf(bytes);
  expect(header).toContain(from);
  const hostile = withHeader(bytes, header.replace(from, to));
  expect(await refusalOf(hostile)).toBe('INVALID_SNAPSHOT snapshot');
});

test('a header that is no JSON, no UTF-8, or nested beyond reason', async () => {
  const bytes = snapshot(new PlainSource(20));
  const nested = '['.repeat(100_000) + ']'.repeat(100_000);
  const odd = [
    '',
    '{',
    'null',
    '[]',
    '"',
    nested,
    `{"model":${nested}}`,
    new Uint8Array([255, 254]),
  ];
  for (const header of odd) {
    expect(await refusalOf(withHeader(bytes, header))).toBe('INVALID_SNAPSHOT snapshot');
  }
});

const [GROUP] = FINGERPRINT.groups;
const [LAYER] = FINGERPRINT.layers;
const FOREIGN: [string, Partial<CacheFingerprint>][] = [
  ['model', { model: 'another' }],
  ['layers.length', { layers: [LAYER] }],
  ['layers[0].kvHeads', { layers: [{ ...LAYER, kvHeads: 2 }, FINGERPRINT.layers[1]] }],
  ['layers[0].headDim', { layers: [{ ...LAYER, headDim: 3 }, FINGERPRINT.layers[1]] }],
  ['layers[0].valueDim', { layers: [{ ...LAYER, valueDim: 3 }, FINGERPRINT.layers[1]] }],
  ['layers[0].keyDtype', { layers: [{ ...LAYER, keyDtype: 'f32' }, FINGERPRINT.layers[1]] }],
  ['layers[0].valueDtype', { layers: [{ ...LAYER, valueDtype: 'bf16' }, FINGERPRINT.layers[1]] }],
  ['layers[0].rotateKeys', { layers: [{ ...LAYER, rotateKeys: false }, FINGERPRINT.layers[1]] }],
  ['layers[0].rotateValues', { layers: [{ ...LAYER, rotateValues: true }, FINGERPRINT.layers[1]] }],
  ['layers[0].group', { layers: [{ ...LAYER, group: 1 }, FINGERPRINT.layers[1]] }],
  ['layers[0].rope', { layers: [{ ...LAYER, rope: null }, FINGERPRINT.layers[1]] }],
  ['groups[1].window', { groups: [GROUP, { ...FINGERPRINT.groups[1], window: null }] }],
  ['groups[1].window', { groups: [GROUP, { ...FINGERPRINT.groups[1], window: 21 }] }],
  ['groups[1].sinkTokens', { groups: [GROUP, { ...FINGERPRINT.groups[1], sinkTokens: 4 }] }],
  ['groups[1].recent', { groups: [GROUP, { ...FINGERPRINT.groups[1], recent: 9 }] }],
  ['groups[0].blockTokens', { groups: [{ ...GROUP, blockTokens: 64 }, FINGERPRINT.groups[1]] }],
  ['ropes.length', { ropes: [] }],
  ['ropes[0].length', { ropes: [[1]] }],
  ['ropes[0]', { ropes: [[1, 0.6]] }],
];
test.each(FOREIGN)('a sound snapshot of another cache: %s', async (what, change) => {
  const cache = new PlainCache({ ...FINGERPRINT, ...change });
  const bytes = snapshot(new PlainSource(20));
  expect(await refusalOf(bytes, cache)).toBe(`SNAPSHOT_MISMATCH snapshot.${what}`);
});

test('rotations that differ by rounding are the same', () => {
  const bytes = snapshot(new PlainSource(20));
  const cache = new PlainCache({ ...FINGERPRINT, ropes: [[1 - 1e-6, 0.5 + 1e-6]] });
  expect(restoreBytes(cache, bytes).blocks).toHaveLength(4);
});

test('a sequence that is too long for the cache', async () => {
  const source = new PlainSource(20);
  const bytes = snapshot(source);
  const header = headerOf(bytes)
    .replace('"length":20', '"length":9007199254740991')
    .replace('"peak":20', '"peak":9007199254740991')
    .replace('"peak":25', '"peak":9007199254740991');
  expect(await refusalOf(withHeader(bytes, header))).toBe('SNAPSHOT_MISMATCH snapshot.length');
});

describe('streams and files that fail', () => {
  const source = new PlainSource(50);

  test('a stream that breaks while it is read', async () => {
    const bytes = Buffer.from(snapshot(source));
    for (const at of [0, 10, 500, bytes.length - 1]) {
      const cache = new PlainCache();
      const stream = Readable.from(
        (function* () {
          yield bytes.subarray(0, at);
          throw new Error('the line is cut');
        })(),
      );
      expect(await rejectionOf(restoreSnapshotFrom(cache, stream))).toBe('STORE_FAILED source');
      expect(cache.begun).toBe(cache.aborted);
      expect(stream.destroyed).toBe(true);
    }
  });

  test('a stream of something else than bytes', async () => {
    const cache = new PlainCache();
    for (const stream of [Readable.from(['text']), Readable.from([{}])]) {
      expect(await rejectionOf(restoreSnapshotFrom(cache, stream))).toBe('INVALID_ARGUMENT source');
    }
  });

  test('a stream that is refused is let go of', async () => {
    const stream = Readable.from([Buffer.alloc(100), Buffer.alloc(100)]);
    expect(await rejectionOf(restoreSnapshotFrom(new PlainCache(), stream))).toBe(
      'INVALID_SNAPSHOT snapshot',
    );
    expect(stream.destroyed).toBe(true);
  });

  test('a stream that takes no more', async () => {
    const full = new Writable({
      write: (_chunk, _encoding, done) => done(new Error('the disk is full')),
    });
    expect(await rejectionOf(writeSnapshotTo(source, full))).toBe('STORE_FAILED target');
    const closed = new Writable({ write: (_chunk, _encoding, done) => done() });
    closed.destroy();
    expect(await rejectionOf(writeSnapshotTo(source, closed))).toBe('STORE_FAILED target');
  });

  test('arguments that are neither path nor stream', async () => {
    for (const wrong of [null, undefined, 7, {}, '', []]) {
      expect(await rejectionOf(writeSnapshotTo(source, wrong as never))).toBe(
        'INVALID_ARGUMENT target',
      );
      const restored = restoreSnapshotFrom(new PlainCache(), wrong as never);
      expect(await rejectionOf(restored)).toBe('INVALID_ARGUMENT source');
    }
  });
});
