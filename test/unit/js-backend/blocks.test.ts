/** What lies in a block: rotations, copies between dtypes, moved tokens, the bytes of snapshots. */
import { rotate, rotateBack } from '../../../lib/backend/js/rotate';
import type { JsArena } from '../../../lib/backend/js/arena';
import { expectClose, expectSameBits } from '../../support/compare';
import { decodeSmall, type FloatName } from '../../support/numbers';
import { rotated, turnedBack, type CacheName } from '../../support/quantise';
import { Random } from '../../support/random';
import { copiedRows, isQuantised, tailRows } from '../../support/stored-rows';
import type { Rows, Storage } from '../../support/stored-rows';
import { toBits } from '../../support/tensors';
import { BLOCK_TOKENS, createArena, createTail } from './held-sequence';
import { js } from './support';

const DTYPES: CacheName[] = ['f32', 'f16', 'bf16', 'q8', 'q4'];
const PAIRS = DTYPES.flatMap((from) => DTYPES.map((to) => [from, to] as const));
const TABLE = { ids: Int32Array.of(2, 0, 1), sinkBlocks: 0, ringBlocks: 3 };

describe('the rotation', () => {
  const random = new Random(7);

  test.each([1, 2, 3, 31, 32, 48, 64, 80, 96, 127, 128, 192])('of %i dims', (dims) => {
    const row = random.normals(dims, 5).map(Math.fround);
    const x = Float32Array.from([9, ...row, 9]);
    rotate(x, 1, dims);
    expect([...x]).toEqual([9, ...rotated(row), 9]);
    expectClose('turned back by definition', turnedBack([...x.subarray(1, -1)]), row, 1e-6);
    const wide = Float64Array.from(row);
    rotate(wide, 0, dims);
    expectClose('in f64', wide, x.subarray(1, -1), 1e-6);
    rotateBack(wide, 0, dims);
    expectClose('there and back', wide, row, 1e-7);
  });
});

function storageOf(
  keyDtype: CacheName,
  valueDtype: CacheName,
  headDim: number,
  valueDim: number,
): Storage {
  return {
    kvHeads: 2,
    headDim,
    valueDim,
    keyDtype,
    valueDtype,
    rotateKeys: true,
    rotateValues: false,
  };
}

function randomRows({ kvHeads, headDim, valueDim }: Storage, tokens: number, seed: number): Rows {
  const random = new Random(seed);
  // Keys have offsets of their dims' own, as in models.
  const k = random
    .normals(tokens * kvHeads * headDim)
    .map((x, i) => Math.fround(x + (i % headDim)));
  return { k, v: random.normals(tokens * kvHeads * valueDim).map(Math.fround) };
}

function storeRows(
  arena: JsArena,
  rows: Rows,
  from: number,
  count: number,
  position: number,
): void {
  const data = { k: toBits(rows.k, 'f32'), v: toBits(rows.v, 'f32'), dtype: 'f32' as const };
  js.store({ arena, table: TABLE, ...data, from, count, position });
}

/** The block's numbers as its bytes say, [tokens][kvHeads] of dims; the reader of docs/snapshots.md. */
function decode(storage: Storage, bytes: Uint8Array): Rows {
  const { kvHeads, headDim, valueDim, keyDtype, valueDtype } = storage;
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const half = (at: number): number => decodeSmall(view.getUint16(at, true), 'f16');
  const rows = { k: [] as number[], v: [] as number[] };
  const put = (
    x: number[],
    dims: number,
    head: number,
    read: (t: number, d: number) => number,
  ): void => {
    for (let t = 0; t < BLOCK_TOKENS; t++)
      for (let d = 0; d < dims; d++) x[(t * kvHeads + head) * dims + d] = Math.fround(read(t, d));
  };
  const floats = (at: number, dims: number, dtype: FloatName) => (t: number, d: number) => {
    if (dtype === 'f32') return view.getFloat32(at + 4 * (t * dims + d), true);
    return decodeSmall(view.getUint16(at + 2 * (t * dims + d), true), dtype);
  };
  const keys = (at: number) => (t: number, d: number) => {
    const codes = at + 4 * headDim;
    const rowBytes = keyDtype === 'q8' ? headDim : Math.ceil(headDim / 2);
    const byte = bytes[codes + t * rowBytes + (keyDtype === 'q8' ? d : Math.floor(d / 2))];
    const code = keyDtype === 'q8' ? byte : d % 2 === 0 ? byte % 16 : Math.floor(byte / 16);
    return half(at + 2 * headDim + 2 * d) * code + half(at + 2 * d);
  };
  const groupBytes = valueDtype === 'q8' ? 34 : 20;
  const values = (at: number) => (t: number, d: number) => {
    const group = at + (t * Math.ceil(valueDim / 32) + Math.floor(d / 32)) * groupBytes;
    const i = d % 32;
    if (valueDtype === 'q8') return half(group) * view.getInt8(group + 2 + i);
    const byte = bytes[group + 4 + (i % 16)];
    return half(group) * (i < 16 ? byte % 16 : Math.floor(byte / 16)) + half(group + 2);
  };
  const { keyBytes, valueBytes } = headBytes(storage);
  for (let head = 0; head < kvHeads; head++) {
    const at = head * (keyBytes + valueBytes);
    put(rows.k, headDim, head, isQuantised(keyDtype) ? keys(at) : floats(at, headDim, keyDtype));
    const v = at + keyBytes;
    put(
      rows.v,
      valueDim,
      head,
      isQuantised(valueDtype) ? values(v) : floats(v, valueDim, valueDtype),
    );
  }
  return rows;
}

function expectSame(actual: Rows, expected: Rows): void {
  expectClose('keys', actual.k, expected.k, 0);
  expectClose('values', actual.v, expected.v, 0);
}

function headBytes({ headDim, valueDim, keyDtype, valueDtype }: Storage): {
  keyBytes: number;
  valueBytes: number;
} {
  const size = { f32: 4, f16: 2, bf16: 2 };
  const codeBytes = keyDtype === 'q8' ? headDim : Math.ceil(headDim / 2);
  const groups = Math.ceil(valueDim / 32);
  return {
    keyBytes: isQuantised(keyDtype) ? 4 * headDim + 64 * codeBytes : 64 * headDim * size[keyDtype],
    valueBytes: isQuantised(valueDtype)
      ? 64 * groups * (valueDtype === 'q8' ? 34 : 20)
      : 64 * valueDim * size[valueDtype],
  };
}

function bytesOf(storage: Storage, arena: JsArena, id: number, tokens = BLOCK_TOKENS): Uint8Array {
  const { keyBytes, valueBytes } = headBytes(storage);
  // Not at the start of its buffer, and full of what may not stay.
  const bytes = new Uint8Array(storage.kvHeads * (keyBytes + valueBytes) + 3)
    .subarray(3)
    .fill(0xa5);
  js.readBlock({ arena, id, bytes, tokens });
  return bytes;
}

describe.each([
  [5, 7],
  [64, 40],
])('blocks of %i and %i dims', (headDim, valueDim) => {
  test.each(PAIRS)(
    'K %s and V %s: bytes are what is held, and become a block again',
    (keyDtype, valueDtype) => {
      const storage = storageOf(keyDtype, valueDtype, headDim, valueDim);
      const rows = randomRows(storage, BLOCK_TOKENS, 11);
      const [tail, main] = [createTail(storage, 3), createArena(storage, 3)] as JsArena[];
      storeRows(tail, rows, 0, BLOCK_TOKENS, BLOCK_TOKENS);
      js.copyBlock({ from: tail, fromId: 0, to: main, toId: 1 });
      const bytes = bytesOf(storage, main, 1);
      expectSame(decode(storage, bytes), copiedRows(storage, tailRows(storage, rows)));

      const other = createArena(storage, 3) as JsArena;
      js.writeBlock({ arena: other, id: 2, bytes, tokens: BLOCK_TOKENS });
      expectSameBits('bytes', bytesOf(storage, other, 2), bytes);
      js.copyBlock({ from: other, fromId: 2, to: other, toId: 0 });
      expectSameBits('bytes', bytesOf(storage, other, 0), bytes);
      expectSameBits('bytes', bytesOf(storage, other, 1), new Uint8Array(bytes.length));
    },
  );
});

test.each(PAIRS)('a copy from %s to %s holds the numbers in the other dtype', (from, to) => {
  const [source, goal] = [storageOf(from, from, 9, 40), storageOf(to, to, 9, 40)];
  const rows = randomRows(source, BLOCK_TOKENS, 12);
  const [tail, first, second] = [
    createTail(source, 3),
    createArena(source, 3),
    createArena(goal, 3),
  ] as JsArena[];
  storeRows(tail, rows, 0, BLOCK_TOKENS, 0);
  js.copyBlock({ from: tail, fromId: 2, to: first, toId: 0 });
  js.copyBlock({ from: first, fromId: 0, to: second, toId: 1 });
  const numbers = decode(source, bytesOf(source, first, 0));
  expectSame(decode(goal, bytesOf(goal, second, 1)), copiedRows(goal, numbers));
});

test.each(['f32', 'f16', 'bf16'] as const)('%s tokens move towards the front', (dtype) => {
  const storage = storageOf(dtype, dtype, 5, 7);
  const rows = randomRows(storage, 150, 13);
  const arena = createArena(storage, 3) as JsArena;
  storeRows(arena, rows, 0, 150, 0);
  const from = Int32Array.of(60, 63, 70, 131, 149);
  js.moveTokens({ arena, table: TABLE, from, to: 60, count: 5 });
  const { k, v } = tailRows(storage, rows);
  from.forEach((position, i) => {
    k.splice((60 + i) * 10, 10, ...k.slice(position * 10, (position + 1) * 10));
    v.splice((60 + i) * 14, 14, ...v.slice(position * 14, (position + 1) * 14));
  });
  TABLE.ids.forEach((id, ordinal) => {
    const held = decode(storage, bytesOf(storage, arena, id));
    const first = ordinal * BLOCK_TOKENS;
    const count = Math.min(BLOCK_TOKENS, 150 - first);
    expect(held.k.slice(0, count * 10)).toEqual(k.slice(first * 10, (first + count) * 10));
    expect(held.v.slice(0, count * 14)).toEqual(v.slice(first * 14, (first + count) * 14));
  });
});

test('slots without a token read as zeros, whatever is in them', () => {
  const storage = storageOf('f32', 'f16', 5, 7);
  const arena = createArena(storage, 3) as JsArena;
  storeRows(arena, randomRows(storage, BLOCK_TOKENS, 14), 0, BLOCK_TOKENS, 0);
  const { k, v } = decode(storage, bytesOf(storage, arena, TABLE.ids[0], 20));
  const whole = decode(storage, bytesOf(storage, arena, TABLE.ids[0]));
  expect(k).toEqual(whole.k.map((x, i) => (i < 20 * 10 ? x : 0)));
  expect(v).toEqual(whole.v.map((x, i) => (i < 20 * 14 ? x : 0)));
});

test('constant, huge and tiny keys', () => {
  for (const dtype of ['q8', 'q4'] as const) {
    const storage = { ...storageOf(dtype, dtype, 8, 8), rotateKeys: false };
    const dims = [0, 1.0009, -3.5, 65504, -65504, 1e-7, 6e-8, -0];
    const k = Array.from({ length: 1024 }, (_, i) => Math.fround(dims[i % 8]));
    k[3 + 8 * 16] = -65504; // the widest range a dim can have, of one head
    const rows = { k, v: k };
    const [tail, main] = [createTail(storage, 3), createArena(storage, 3)] as JsArena[];
    storeRows(tail, rows, 0, BLOCK_TOKENS, 0);
    js.copyBlock({ from: tail, fromId: 2, to: main, toId: 0 });
    const held = copiedRows(storage, tailRows(storage, rows));
    expectSame(decode(storage, bytesOf(storage, main, 0)), held);
  }
});
