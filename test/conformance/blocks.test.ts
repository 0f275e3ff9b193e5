/** Blocks of arenas, below the cache: what they store to the bit, how they move, attention over them. */
import { getBackend } from '../../lib/backend';
import type { Arena, AttendArgs } from '../../lib/backend/contract';
import { attentionOracle, type OracleAttention } from '../oracle';
import { compareWithOracle } from '../support/attention-case';
import {
  blockRows,
  BLOCK_TOKENS,
  fillArena,
  layoutOf,
  storedKeys,
  storedValues,
  tableOf,
  type ArenaCase,
  type FilledArena,
} from '../support/arenas';
import { keyBytes, storedBytes, valueBytes } from '../support/block-bytes';
import type { FloatName } from '../support/numbers';
import { isQuantised, turnedBack, type CacheName } from '../support/quantise';
import { Random } from '../support/random';
import { axis } from '../support/samples';
import { normals, tensor, toBits } from '../support/tensors';
import { coarser } from '../tolerances';

const backend = getBackend();
const DTYPES = ['f32', 'f16', 'bf16', 'q8', 'q4'] as const;
const PLAIN: ArenaCase = {
  keyDtype: 'q8',
  valueDtype: 'q8',
  kvHeads: 2,
  headDim: 40,
  valueDim: 33,
  blocks: 2,
};

function blockBytes({ keyDtype, valueDtype, kvHeads, headDim, valueDim }: ArenaCase): number {
  const row = (dtype: CacheName, dims: number): number =>
    ({ f32: 4, f16: 2, bf16: 2, q8: 1, q4: 0.5 })[dtype] * dims;
  const key = isQuantised(keyDtype)
    ? 4 * headDim + BLOCK_TOKENS * Math.ceil(row(keyDtype, headDim))
    : BLOCK_TOKENS * row(keyDtype, headDim);
  const groups = Math.ceil(valueDim / 32);
  const value = isQuantised(valueDtype)
    ? BLOCK_TOKENS * groups * (valueDtype === 'q8' ? 34 : 20)
    : BLOCK_TOKENS * row(valueDtype, valueDim);
  return kvHeads * (key + value);
}

function read(c: ArenaCase, arena: Arena, id: number, tokens = BLOCK_TOKENS): Uint8Array {
  const bytes = new Uint8Array(blockBytes(c)).fill(0xa5);
  backend.readBlock({ arena, id, bytes, tokens });
  return bytes;
}

/** Element by element toEqual takes seconds. */
function expectBytes(actual: Uint8Array, expected: Uint8Array): void {
  expect(actual.length).toBe(expected.length);
  expect(actual.findIndex((byte, i) => byte !== expected[i])).toBe(-1);
}

/** A block's bytes by the definition, from what went into it. */
function expectedBytes(c: ArenaCase, filled: FilledArena, ordinal: number): Uint8Array {
  const bytes = filled.keys.flatMap((rows, head) => {
    const keys = blockRows(rows, ordinal);
    const values = blockRows(filled.values[head], ordinal);
    return [
      ...(isQuantised(c.keyDtype) ? keyBytes(keys, c.keyDtype) : storedBytes(keys, c.keyDtype)),
      ...(isQuantised(c.valueDtype)
        ? valueBytes(values, c.valueDtype)
        : storedBytes(values, c.valueDtype)),
    ];
  });
  return Uint8Array.from(bytes);
}

describe('stored numbers, bit for bit', () => {
  const kinds = DTYPES.flatMap((keyDtype) =>
    DTYPES.flatMap((valueDtype) =>
      [false, true].map((rotates) => ({ keyDtype, valueDtype, rotates })),
    ),
  );
  test.each(axis(kinds))('K $keyDtype, V $valueDtype, rotated: $rotates', (kind) => {
    const rotates = { rotateKeys: kind.rotates, rotateValues: kind.rotates };
    for (const [headDim, valueDim] of [
      [40, 33],
      [7, 128],
    ]) {
      const c: ArenaCase = { ...PLAIN, ...kind, ...rotates, headDim, valueDim };
      const filled = fillArena(c, new Random(5));
      for (const ordinal of [0, 1])
        expectBytes(
          read(c, filled.arena, filled.table.ids[ordinal]),
          expectedBytes(c, filled, ordinal),
        );
      filled.arena.dispose();
    }
  });

  test.each([1, 2, 3, 16, 17, 33, 64, 96, 576])('rotation of %i dims', (dim) => {
    const c: ArenaCase = {
      ...{ ...PLAIN, keyDtype: 'f32', valueDtype: 'f32', headDim: dim, valueDim: dim },
      ...{ rotateKeys: true, rotateValues: true },
    };
    const filled = fillArena(c, new Random(dim));
    expectBytes(read(c, filled.arena, 1), expectedBytes(c, filled, 0));
  });

  test.each(['q8', 'q4'] as const)('%s of constants and extremes', (dtype) => {
    const dims = 32;
    const c: ArenaCase = { ...PLAIN, keyDtype: dtype, valueDtype: dtype, headDim: dims };
    const one = { ...c, kvHeads: 1, valueDim: dims, blocks: 1 };
    const columns = [0, 1, -3.5, 65504, -65504, 0.01, 1000.3, 6e-8, -6e-8];
    const rows = Array.from({ length: BLOCK_TOKENS }, (_, t) =>
      Array.from({ length: dims }, (_, d) =>
        d < columns.length ? columns[d] : columns[(d + t) % columns.length],
      ).map(Math.fround),
    );
    const flat = Float32Array.from(rows.flat());
    const tail = backend.createArena(layoutOf({ ...one, keyDtype: 'f32', valueDtype: 'f32' }));
    const store = { k: flat, v: flat, dtype: 'f32' as const, from: 0, count: 64, position: 0 };
    backend.store({ arena: tail, table: tableOf(1), ...store });
    const arena = backend.createArena(layoutOf(one));
    backend.copyBlock({ from: tail, fromId: 0, to: arena, toId: 0 });
    expectBytes(
      read(one, arena, 0),
      Uint8Array.from([...keyBytes(rows, dtype), ...valueBytes(rows, dtype)]),
    );
  });
});

describe('blocks as bytes', () => {
  test.each(axis(DTYPES.flatMap((k) => DTYPES.map((v) => [k, v] as const))))(
    'any bits of K %s and V %s come back',
    (keyDtype, valueDtype) => {
      const c = { ...PLAIN, keyDtype, valueDtype };
      const random = new Random(9);
      const bytes = Uint8Array.from({ length: blockBytes(c) }, () => random.int(0, 255));
      const arena = backend.createArena(layoutOf(c));
      backend.writeBlock({ arena, id: 1, bytes, tokens: BLOCK_TOKENS });
      expectBytes(read(c, arena, 1), bytes);
      expectBytes(read(c, arena, 0), new Uint8Array(bytes.length));
    },
  );

  test.each(['f32', 'f16', 'bf16'] as const)('slots of %s without a token are zeros', (dtype) => {
    const c: ArenaCase = { ...PLAIN, keyDtype: dtype, valueDtype: dtype, kvHeads: 1, blocks: 1 };
    const { arena } = fillArena(c, new Random(2));
    const [size, tokens] = [dtype === 'f32' ? 4 : 2, 21];
    const whole = read(c, arena, 0);
    const some = read(c, arena, 0, tokens);
    const values = BLOCK_TOKENS * c.headDim * size;
    whole.fill(0, tokens * c.headDim * size, values);
    whole.fill(0, values + tokens * c.valueDim * size);
    expectBytes(some, whole);
  });
});

describe('copies', () => {
  test.each(axis(DTYPES.flatMap((from) => DTYPES.map((to) => [from, to] as const))))(
    '%s to %s',
    (from, to) => {
      const c: ArenaCase = { ...PLAIN, keyDtype: from, valueDtype: from };
      const filled = fillArena(c, new Random(4));
      const target = { ...c, keyDtype: to, valueDtype: to };
      const arena = backend.createArena(layoutOf(target, 3));
      backend.copyBlock({ from: filled.arena, fromId: filled.table.ids[1], to: arena, toId: 2 });
      const same = from === to;
      // From whole numbers back to values, and from those on.
      const held: FilledArena = {
        ...filled,
        keys: same ? filled.keys : filled.keys.map((rows) => storedKeys(rows, from)),
        values: same ? filled.values : filled.values.map((rows) => storedValues(rows, from)),
      };
      expectBytes(read(target, arena, 2), expectedBytes(target, held, 1));
      expectBytes(read(target, arena, 0), new Uint8Array(blockBytes(target)));
    },
  );

  test.each(['f32', 'f16', 'bf16'] as const)('tokens of %s move down', (dtype) => {
    const c: ArenaCase = { ...PLAIN, keyDtype: dtype, valueDtype: dtype };
    const filled = fillArena(c, new Random(8));
    const from = Int32Array.from([60, 61, 66, 70, 127]);
    const { arena, table } = filled;
    backend.moveTokens({ arena, table, from, to: 60, count: from.length });
    for (const heads of [filled.keys, filled.values])
      for (const rows of heads) from.forEach((source, i) => (rows[60 + i] = rows[source]));
    for (const ordinal of [0, 1])
      expectBytes(read(c, arena, table.ids[ordinal]), expectedBytes(c, filled, ordinal));
  });
});

describe('refused', () => {
  const arena = backend.createArena(layoutOf(PLAIN));
  const floats = { ...PLAIN, keyDtype: 'f16', valueDtype: 'f16' } as const;
  const tail = backend.createArena(layoutOf(floats));
  const refusal = expect.objectContaining({
    code: expect.stringMatching(/^(INTERNAL|BUFFER_TOO_SMALL)$/) as string,
  }) as Error;
  const native = backend.info.kind === 'native' ? test : test.skip; // what has no memory to protect trusts its caller

  native('a block beyond the arena, and another shape', () => {
    expect(() => backend.copyBlock({ from: tail, fromId: 2, to: arena, toId: 0 })).toThrow(refusal);
    expect(() => backend.copyBlock({ from: tail, fromId: 0, to: arena, toId: -1 })).toThrow(
      refusal,
    );
    const wide = backend.createArena(layoutOf({ ...floats, headDim: 41 }));
    expect(() => backend.copyBlock({ from: wide, fromId: 0, to: arena, toId: 0 })).toThrow(refusal);
    const turned = backend.createArena(layoutOf({ ...floats, rotateKeys: true }));
    expect(() => backend.copyBlock({ from: turned, fromId: 0, to: arena, toId: 0 })).toThrow(
      refusal,
    );
  });

  native('single tokens into and within quantised blocks', () => {
    const rows = { k: new Float32Array(80), v: new Float32Array(66), dtype: 'f32' as const };
    const where = { table: tableOf(2), from: 0, count: 1, position: 0 };
    expect(() => backend.store({ arena, ...rows, ...where })).toThrow(refusal);
    const move = { table: tableOf(2), from: Int32Array.of(1), to: 0, count: 1 };
    expect(() => backend.moveTokens({ arena, ...move })).toThrow(refusal);
  });

  native('moves upwards, or from where no block is', () => {
    const move = { arena: tail, table: tableOf(2), to: 5, count: 1 };
    expect(() => backend.moveTokens({ ...move, from: Int32Array.of(4) })).toThrow(refusal);
    const nowhere = { ...move, table: { ids: Int32Array.of(0, 7), sinkBlocks: 0, ringBlocks: 2 } };
    expect(() => backend.moveTokens({ ...nowhere, from: Int32Array.of(64) })).toThrow(refusal);
  });

  native('too few bytes, and a block or tokens too many', () => {
    const bytes = new Uint8Array(blockBytes(PLAIN));
    for (const args of [
      { id: 0, bytes: bytes.subarray(1), tokens: 64 },
      { id: 2, bytes, tokens: 64 },
      { id: 0, bytes, tokens: 65 },
    ]) {
      expect(() => backend.readBlock({ arena, ...args })).toThrow(refusal);
      expect(() => backend.writeBlock({ arena, ...args })).toThrow(refusal);
    }
  });
});

interface Rows {
  queries: number;
  group: number;
  keyTokens?: number;
  qDtype?: FloatName;
  precision?: 'exact' | 'fast';
}

function checkAttention(c: ArenaCase, filled: FilledArena, rows: Rows, random: Random): void {
  const { queries, group, qDtype = 'f32', precision = 'exact' } = rows;
  const { kvHeads, headDim, valueDim } = c;
  const keyTokens = rows.keyTokens ?? c.blocks * BLOCK_TOKENS;
  const heads = kvHeads * group;
  const q = normals(random, queries * heads * headDim, qDtype);
  const flat = (stored: number[][][], rotates: boolean | undefined): number[] =>
    Array.from({ length: keyTokens }, (_, t) =>
      stored.flatMap((head) => (rotates === true ? turnedBack(head[t]) : head[t])),
    ).flat();
  const oracle: OracleAttention = {
    ...{ q, batch: 1, queryTokens: queries, keyTokens, heads, kvHeads, headDim, valueDim },
    k: flat(
      filled.keys.map((head) => storedKeys(head, c.keyDtype)),
      c.rotateKeys,
    ),
    v: flat(
      filled.values.map((head) => storedValues(head, c.valueDtype)),
      c.rotateValues,
    ),
    causal: true,
  };
  const out = new Float32Array(queries * heads * valueDim);
  const lse = new Float32Array(queries * heads);
  const args: AttendArgs = {
    ...{ q: toBits(q, qDtype), sinkQ: null, qDtype, out, outDtype: 'f32', lse, batch: 1 },
    ...{ queryTokens: queries, keyTokens, heads, kvHeads, headDim, valueDim, precision },
    kv: { type: 'cache', arena: filled.arena, table: filled.table, tail: null },
    ...{ causal: true, window: Infinity, sinkTokens: 0, scale: 1 / Math.sqrt(headDim) },
    ...{
      softcap: 0,
      mask: null,
      bias: null,
      alibiSlopes: null,
      sinkLogits: null,
      stats: null,
      dropout: null,
    },
  };
  backend.attend(args);
  const result = {
    out: tensor(out, [queries, heads, valueDim], 'f32'),
    lse: { data: lse },
  } as Parameters<typeof compareWithOracle>[1];
  // An f32 query is exact over 16-bit storage, unless it may be rounded.
  const storage = [c.keyDtype, c.valueDtype].map((dtype) =>
    isQuantised(dtype) || (precision === 'fast' && dtype === 'bf16') ? dtype : 'f32',
  );
  const coarsest = [qDtype, ...storage].reduce(coarser);
  compareWithOracle(
    JSON.stringify({ c, rows }),
    result,
    attentionOracle(oracle),
    coarsest,
    precision,
  );
}

describe('attention over blocks', () => {
  const widths = [1, 33, 40, 80, 96, 128, 576];
  const calls = (['f32', 'f16', 'bf16'] as const).flatMap((qDtype) =>
    (['exact', 'fast'] as const).map((precision) => ({ qDtype, precision })),
  );
  const rotations = [0, 1, 2, 3].map((n) => ({ rotateKeys: n % 2 === 1, rotateValues: n > 1 }));

  test.each(axis(widths))('head dim %i', (headDim) => {
    const random = new Random(headDim);
    for (const dtype of ['q8', 'q4'] as const)
      for (const rotation of axis(rotations)) {
        const dtypes = { keyDtype: dtype, valueDtype: dtype };
        const c: ArenaCase = { ...PLAIN, ...dtypes, ...rotation, headDim, valueDim: headDim };
        const one = { ...c, kvHeads: 1 };
        const filled = fillArena(one, random);
        checkAttention(one, filled, { queries: 1, group: 3 }, random);
        checkAttention(one, filled, { queries: 51, group: 1, keyTokens: 101 }, random);
        filled.arena.dispose();
      }
  });

  // Both sides of the row counts at which kernels change from integers to widened blocks.
  test.each(axis([1, 2, 5, 7, 13, 24, 25, 47, 48, 49, 60]))('%i queries', (queries) => {
    const random = new Random(queries);
    for (const dtype of ['q8', 'q4'] as const) {
      const c: ArenaCase = { ...PLAIN, keyDtype: dtype, valueDtype: dtype, headDim: 80 };
      const filled = fillArena(c, random);
      for (const call of axis(calls, 5)) {
        checkAttention(c, filled, { queries, group: 1, ...call }, random);
      }
      filled.arena.dispose();
    }
  });

  const mixed = DTYPES.flatMap((k) => DTYPES.map((v) => [k, v] as const)).filter(
    ([k, v]) => k !== v,
  );
  test.each(axis(mixed))('K %s, V %s', (keyDtype, valueDtype) => {
    const random = new Random(17);
    for (const rotation of [rotations[0], rotations[3]]) {
      const c: ArenaCase = { ...PLAIN, ...rotation, keyDtype, valueDtype };
      const filled = fillArena(c, random);
      for (const queries of axis([1, 9, 60]))
        for (const call of axis(calls.filter(({ qDtype }) => qDtype !== 'f16'))) {
          checkAttention(c, filled, { queries, group: 2, ...call }, random);
        }
      filled.arena.dispose();
    }
  });

  test('one key alone gives its value', () => {
    const c: ArenaCase = { ...PLAIN, keyDtype: 'q4', valueDtype: 'q4', rotateValues: true };
    const filled = fillArena(c, new Random(3));
    checkAttention(c, filled, { queries: 1, group: 1, keyTokens: 1 }, new Random(3));
  });

  test.each(['q8', 'q4'] as const)('a NaN or an Infinity in the query of %s is NaN', (dtype) => {
    const c: ArenaCase = { ...PLAIN, keyDtype: dtype, valueDtype: dtype };
    const filled = fillArena(c, new Random(6));
    for (const bad of [NaN, Infinity]) {
      const out = new Float32Array(2 * c.valueDim);
      const q = new Float32Array(2 * c.headDim);
      q[3] = bad;
      backend.attend({
        ...{ q, sinkQ: null, qDtype: 'f32', out, outDtype: 'f32', lse: null, batch: 1 },
        ...{ queryTokens: 1, keyTokens: 64, heads: 2, kvHeads: 2, precision: 'exact' },
        ...{ headDim: c.headDim, valueDim: c.valueDim, causal: true, window: Infinity },
        kv: { type: 'cache', arena: filled.arena, table: filled.table, tail: null },
        ...{ sinkTokens: 0, scale: 1, softcap: 0, mask: null, bias: null, alibiSlopes: null },
        ...{ sinkLogits: null, stats: null, dropout: null },
      });
      const [first, second] = [out.subarray(0, c.valueDim), out.subarray(c.valueDim)];
      for (const x of first) expect(x).toBeNaN();
      for (const x of second) expect(x).not.toBeNaN();
    }
  });
});
