/** Attention over keys that lie in two arenas, and whose sinks meet queries of their own. */
import { getBackend } from '../../lib/backend';
import type { AttendArgs } from '../../lib/backend/contract';
import { attentionTolerance, coarser, lseTolerance } from '../tolerances';
import { expectClose, expectSameBits, toNumbers } from '../support/compare';
import type { FloatName } from '../support/numbers';
import {
  chainOf,
  expectedRows,
  PagedStore,
  rowFeatures,
  someSlopes,
  type PagedSequence,
  type PagedShape,
  type RowFeatures,
  type TailRange,
} from '../support/paged-sequences';
import { Random } from '../support/random';
import { axis, samples } from '../support/samples';
import { emptyOut, normals, toBits } from '../support/tensors';

const DTYPES = ['f32', 'f16', 'bf16'] as const;
const BASE = { kvHeads: 2, headDim: 12, valueDim: 18, blockTokens: 64 };

interface Case {
  dtype: FloatName;
  tokens: number;
  keyTokens: number;
  group: number;
  range: TailRange | null;
  sinkQ: boolean;
  precision: 'exact' | 'fast';
  features: RowFeatures;
}

interface Prepared {
  args: AttendArgs;
  q: number[];
  sinkQ: number[] | null;
  heads: number;
}

function prepare(c: Case, shape: PagedShape, sequence: PagedSequence, store: PagedStore): Prepared {
  const heads = shape.kvHeads * c.group;
  const q = normals(store.random, c.tokens * heads * shape.headDim, c.dtype);
  const sinkQ = c.sinkQ ? normals(store.random, q.length, c.dtype) : null;
  const args: AttendArgs = {
    ...{ q: toBits(q, c.dtype), sinkQ: sinkQ && toBits(sinkQ, c.dtype), qDtype: c.dtype },
    out: emptyOut([c.tokens, heads, shape.valueDim], c.dtype).storage.data,
    outDtype: c.dtype,
    lse: new Float32Array(c.tokens * heads).fill(NaN),
    ...{ batch: 1, queryTokens: c.tokens, keyTokens: c.keyTokens, heads, kvHeads: shape.kvHeads },
    ...{ headDim: shape.headDim, valueDim: shape.valueDim },
    kv: { type: 'cache', arena: store.main, table: sequence.table, tail: sequence.tail },
    ...{ causal: true, mask: null, bias: null, dropout: null, stats: null, precision: c.precision },
    ...c.features,
  };
  return { args, q, sinkQ, heads };
}

function check(c: Case, shape: PagedShape, store: PagedStore): Prepared {
  const { window, sinkTokens } = c.features;
  const seen = (j: number) => j > c.keyTokens - c.tokens - window || j < sinkTokens;
  const sequence = store.sequence(c.keyTokens, c.range, null, seen);
  const p = prepare(c, shape, sequence, store);
  const { args } = p;
  getBackend().attend(args);
  const chain = chainOf(c.tokens, window, sinkTokens - (c.keyTokens - c.tokens));
  const expected = expectedRows(shape, p.heads, sequence, p.q, p.sinkQ, chain, c.features);
  const dtype = coarser(coarser(c.dtype, shape.dtype), shape.tailDtype ?? 'f32');
  const what = JSON.stringify({ ...c, shape });
  const tolerance = attentionTolerance(dtype, expected.largestScore, c.precision);
  expectClose(`out of ${what}`, toNumbers(args.out, c.dtype), expected.out, tolerance);
  const lseLimit = lseTolerance(dtype, expected.largestScore, c.precision);
  expectClose(`lse of ${what}`, Array.from(args.lse!), expected.lse, lseLimit);
  return p;
}

describe.each(DTYPES)('a tail over %s', (dtype) => {
  const keyTokens = 300; // Ordinals 0 to 4.
  const ranges: TailRange[] = [
    { sinkOrdinals: 0, firstOrdinal: 4 },
    { sinkOrdinals: 1, firstOrdinal: 4 },
    { sinkOrdinals: 2, firstOrdinal: 3 },
    { sinkOrdinals: 0, firstOrdinal: 0 },
    { sinkOrdinals: 4, firstOrdinal: 2 },
    { sinkOrdinals: 0, firstOrdinal: 5 },
    { sinkOrdinals: 1, firstOrdinal: 9 },
  ];

  test.each(axis(ranges, 2))('%j', (range) => {
    const rows: [number, number][] = [
      [1, Infinity],
      [5, 90],
      [60, 90],
    ];
    rows.forEach(([tokens, window], i) => {
      const shape = { ...BASE, dtype, tailDtype: DTYPES[i] };
      const store = new PagedStore(shape, new Random(tokens), 12);
      const features = rowFeatures({ window, sinkTokens: window === 90 ? 10 : 0 });
      const c = { dtype, tokens, keyTokens, group: 2, range, features };
      check({ ...c, sinkQ: false, precision: 'exact' }, shape, store);
      store.dispose();
    });
  });

  test('random shapes, windows, sinks, queries of sinks and features', () => {
    for (let seed = 0; seed < samples(25); seed++) {
      const random = new Random(seed);
      const tokens = random.pick([1, 1, 2, 7, 30, 100]);
      const keys = random.int(tokens, tokens < 10 ? 700 : 200);
      const blockTokens = random.pick([16, 32, 64, 64]);
      const ordinals = Math.ceil(keys / blockTokens);
      const tailDtype = random.pick(DTYPES);
      const kvHeads = random.int(1, 3);
      const dims = { headDim: random.int(1, 40), valueDim: random.int(1, 40) };
      const shape: PagedShape = { kvHeads, ...dims, dtype, tailDtype, blockTokens };
      const group = random.int(1, 5);
      const heads = kvHeads * group;
      const window = random.pick([Infinity, random.int(1, keys), keys + 5]);
      const features = rowFeatures({
        window,
        sinkTokens: random.pick([0, random.int(0, 70), keys]),
        softcap: random.pick([0, 5]),
        alibiSlopes: random.chance(0.3) ? someSlopes(heads) : null,
        sinkLogits: random.chance(0.3) ? Float32Array.from(random.normals(heads)) : null,
      });
      const sinkOrdinals = random.int(0, ordinals);
      const range = { sinkOrdinals, firstOrdinal: random.int(0, ordinals) };
      // A sink logit joins once: where each row sees a key of its own queries.
      const sinkQ = features.sinkLogits === null && random.chance(0.6);
      const c: Case = {
        dtype: random.pick(DTYPES),
        tokens,
        ...{ keyTokens: keys, group, range: random.chance(0.8) ? range : null, sinkQ },
        ...{ precision: random.pick(['exact', 'fast'] as const), features },
      };
      const store = new PagedStore(shape, random, 2 * ordinals);
      check(c, shape, store);
      store.dispose();
    }
  });

  test('async and any number of threads give the same bits', async () => {
    const shape: PagedShape = { ...BASE, dtype, tailDtype: 'f16' };
    const range = { sinkOrdinals: 1, firstOrdinal: 18 };
    const features = rowFeatures({ sinkTokens: 70 });
    const call = { dtype, tokens: 2, keyTokens: 1200, group: 2, range, features };
    const store = new PagedStore(shape, new Random(8), 24);
    const { args } = check({ ...call, sinkQ: true, precision: 'exact' }, shape, store);
    const again = { ...args, out: args.out.slice(), lse: args.lse!.slice() };
    const backend = getBackend();
    const { threads } = backend.info;
    try {
      for (let n = 1; n <= threads; n++) {
        backend.limitThreads(n);
        again.out.fill(1);
        backend.attend(again);
        expectSameBits(`${n} threads`, again.out, args.out);
        expectSameBits(`lse, ${n} threads`, again.lse, args.lse!);
      }
    } finally {
      backend.limitThreads(threads);
    }
    again.out.fill(1);
    expect(await backend.attendAsync(again, new Int32Array(1))).toBe(true);
    expectSameBits('async', again.out, args.out);
    store.dispose();
  });
});

test('what does not fit is refused before anything is read', () => {
  // JavaScript's arrays have bounds of their own; in C++ they are checked.
  if (getBackend().info.kind === 'js') return;
  const shape: PagedShape = { ...BASE, dtype: 'f32', tailDtype: 'f32' };
  const store = new PagedStore(shape, new Random(2), 12);
  const other = new PagedStore({ ...shape, blockTokens: 32 }, new Random(2), 12);
  const range = { sinkOrdinals: 1, firstOrdinal: 3 };
  const sequence = store.sequence(250, range);
  const call = { dtype: 'f32' as const, tokens: 2, keyTokens: 250, group: 1, range };
  const features = rowFeatures({ sinkTokens: 70 });
  const c: Case = { ...call, sinkQ: true, precision: 'exact', features };
  const { args } = prepare(c, shape, sequence, store);
  const tail = sequence.tail!;
  const kv = { type: 'cache' as const, arena: store.main, table: sequence.table, tail };
  const ids = (at: number, id: number) => {
    const changed = tail.table.ids.slice();
    changed[at] = id;
    return { ...tail, table: { ...tail.table, ids: changed } };
  };
  const bad: Partial<AttendArgs>[] = [
    { kv: { ...kv, tail: ids(0, 12) } },
    { kv: { ...kv, tail: ids(0, -1) } },
    { kv: { ...kv, tail: ids(3, 2 ** 31 - 1) } },
    { kv: { ...kv, tail: { ...tail, sinkOrdinals: 2 } } },
    { kv: { ...kv, tail: { ...tail, sinkOrdinals: 0 } } },
    { kv: { ...kv, tail: { ...tail, firstOrdinal: 2 } } },
    { kv: { ...kv, tail: { ...tail, firstOrdinal: 4 } } },
    { kv: { ...kv, tail: { ...tail, firstOrdinal: -1 } } },
    { kv: { ...kv, tail: { ...tail, firstOrdinal: NaN } } },
    { kv: { ...kv, tail: { ...tail, table: { ...tail.table, ringBlocks: 0 } } } },
    { kv: { ...kv, tail: { ...tail, table: { ...tail.table, ringBlocks: 5 } } } },
    { kv: { ...kv, tail: { ...tail, arena: other.main } } },
    { kv: { ...kv, table: { ...kv.table, ids: kv.table.ids.map(() => -1) } } },
    { kv: { ...kv, table: { ...kv.table, ringBlocks: 1 } } },
    { sinkQ: args.q.slice(1) },
    { sinkQ: new Uint16Array(args.q.length) },
  ];
  for (const change of bad) {
    const error = expect.objectContaining({
      code: expect.stringMatching('^(INTERNAL|BUFFER_TOO_SMALL)$'),
    }) as Error;
    expect(() => getBackend().attend({ ...args, ...change })).toThrow(error);
  }
  expect(Array.from(args.out)).toEqual(Array.from(args.out, () => NaN));
  getBackend().attend(args);
  expect(Array.from(args.out).every(Number.isFinite)).toBe(true);
  store.dispose();
  other.dispose();
});
