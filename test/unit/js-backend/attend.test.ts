import * as fc from 'fast-check';
import { JsArena } from '../../../lib/backend/js/arena';
import type { AttendArgs, StoreArgs, TensorSource } from '../../../lib/backend/contract';
import { Random } from '../../support/random';
import { toBits } from '../../support/tensors';
import { cacheFor, expectOracle, inputs, js, SMALL, type Problem } from './support';

const dtype = fc.constantFrom('f32' as const, 'f16' as const, 'bf16' as const);

const problem: fc.Arbitrary<Problem> = fc.record({
  seed: fc.nat(1e6),
  dtype,
  outDtype: dtype,
  batch: fc.integer({ min: 1, max: 2 }),
  queryTokens: fc.integer({ min: 1, max: 12 }),
  keyTokens: fc.integer({ min: 0, max: 150 }),
  kvHeads: fc.integer({ min: 1, max: 2 }),
  group: fc.integer({ min: 1, max: 7 }),
  headDim: fc.integer({ min: 1, max: 40 }),
  valueDim: fc.integer({ min: 1, max: 40 }),
  causal: fc.boolean(),
  window: fc.oneof(fc.constant(Infinity), fc.integer({ min: 1, max: 160 })),
  sinkTokens: fc.oneof(fc.constant(0), fc.integer({ min: 1, max: 90 })),
  softcap: fc.constantFrom(0, 0, 2.5),
  mask: fc.boolean(),
  bias: fc.boolean(),
  alibi: fc.boolean(),
  sinkLogits: fc.boolean(),
  dropout: fc.constantFrom(0, 0, 0.1, 0.5),
});

test('any shape and mixture of features equals the oracle', () => {
  fc.assert(
    fc.property(problem, (p) => {
      const { args, oracle } = inputs(p);
      js.attend(args);
      expectOracle(JSON.stringify(p), args, oracle);
    }),
    { numRuns: 100 },
  );
});

/** A cache problem: the sequence's own geometry on top of the attention's. */
const cached = fc.record({
  problem,
  storeDtype: dtype,
  blockTokens: fc.constantFrom(16, 32, 64),
  others: fc.integer({ min: 0, max: 3 }),
  spare: fc.integer({ min: 0, max: 2 }),
});

test('a ring of blocks gives what the unbounded tensors give, whatever was in the slots before', () => {
  fc.assert(
    fc.property(cached, ({ problem: drawn, storeDtype, blockTokens, others, spare }) => {
      const p = {
        ...drawn,
        batch: 1,
        causal: true,
        queryTokens: Math.min(drawn.queryTokens, drawn.keyTokens + 1),
      };
      const { args, oracle, k, v } = inputs(p);
      // Keys are rounded to the arena's dtype already: a wider source holds them exactly.
      const source = storeDtype === p.dtype ? storeDtype : 'f32';
      const blocks = (tokens: number): number => Math.ceil(tokens / blockTokens);
      const sinkBlocks = blocks(Math.min(p.sinkTokens, p.keyTokens));
      // Rows look back over the window and the chunk; one block more where the first is partly filled.
      const held = Math.min(p.keyTokens, p.window + p.queryTokens);
      const shape = { blockTokens, sinkBlocks, ringBlocks: blocks(held) + 1 + spare, others };
      const { arena, table } = cacheFor(p, shape, new Random(p.seed));

      const keys: Omit<StoreArgs, 'from' | 'count' | 'position'> = {
        arena,
        table,
        dtype: source,
        k: toBits(k, source),
        v: toBits(v, source),
      };
      const poison = {
        ...keys,
        k: keys.k.slice().fill(NaN_BITS[source]),
        v: keys.v.slice().fill(NaN_BITS[source]),
      };
      const tokens = Math.min(p.keyTokens, (sinkBlocks + shape.ringBlocks) * blockTokens);
      js.store({ ...poison, from: 0, count: tokens, position: 0 });
      const half = Math.floor(p.keyTokens / 2);
      js.store({ ...keys, from: 0, count: half, position: 0 });
      js.store({ ...keys, from: half, count: p.keyTokens - half, position: half });

      js.attend({ ...args, kv: { type: 'cache', arena, table, tail: null } });
      expectOracle(
        JSON.stringify({ p, shape }),
        { ...args, kv: { type: 'cache', arena, table, tail: null } },
        oracle,
      );
    }),
    { numRuns: 100 },
  );
});

const NaN_BITS = { f32: NaN, f16: 0x7e00, bf16: 0x7fc0 };

test('a chunk limit splits an arena without changing a result', () => {
  const p = { ...SMALL, keyTokens: 100, queryTokens: 9 };
  const { args, oracle, k, v } = inputs(p);
  const { arena: whole, table } = cacheFor(
    p,
    { blockTokens: 16, sinkBlocks: 0, ringBlocks: 7, others: 2 },
    new Random(3),
  );
  const arena = new JsArena(whole.layout, 3 * 16 * p.headDim + 1);
  expect(arena.bytes).toBe(whole.bytes);
  const kv = { type: 'cache' as const, arena, table, tail: null };
  js.store({
    arena,
    table,
    dtype: 'f32',
    k: toBits(k, 'f32'),
    v: toBits(v, 'f32'),
    from: 0,
    count: 100,
    position: 0,
  });
  js.attend({ ...args, kv });
  expectOracle('chunked arena', args, oracle);
});

test.each([
  ['more than the machine has', { blocks: 2 ** 31, headDim: 128 }],
  ['one block beyond any typed array', { blocks: 1, headDim: 2 ** 47 }],
])('an arena of %s is a typed error', (_, size) => {
  const dtypes = { keyDtype: 'f32' as const, valueDtype: 'f32' as const };
  const rotated = { rotateKeys: false, rotateValues: false };
  const layout = { kvHeads: 8, valueDim: 128, ...dtypes, ...rotated, blockTokens: 64, ...size };
  const error = expect.objectContaining({ code: 'OUT_OF_MEMORY' }) as Error;
  expect(() => js.createArena(layout)).toThrow(error);
});

describe.each([NaN, Infinity])('%p in keys and values', (poison) => {
  // 40 rows at positions 30 .. 69. Keys below 27 are outside every window of 4, 10 .. 39 under the mask.
  const p = { ...SMALL, keyTokens: 70, queryTokens: 40 };
  const cases: { name: string; change: Partial<AttendArgs>; hidden: [number, number] }[] = [
    { name: 'before the window', change: { window: 4 }, hidden: [0, 27] },
    { name: 'between sinks and window', change: { window: 4, sinkTokens: 3 }, hidden: [3, 27] },
    { name: 'under the mask', change: { mask: maskOf(10, 40) }, hidden: [10, 40] },
    { name: 'under a bias of -Infinity', change: { bias: biasOf(10, 40) }, hidden: [10, 40] },
  ];

  test.each(cases)('$name it never leaks', ({ change, hidden: [from, to] }) => {
    const clean = { ...inputs(p).args, ...change };
    const dirty = { ...inputs(p).args, ...change };
    poisonKeys(dirty, from, to);
    js.attend(clean);
    js.attend(dirty);
    expect(Array.from(clean.out)).not.toContain(NaN);
    expect(dirty.out).toEqual(clean.out);
    expect(dirty.lse).toEqual(clean.lse);
  });

  test('it reaches no row that the causal line hides it from', () => {
    const clean = inputs(p).args;
    const dirty = inputs(p).args;
    poisonKeys(dirty, 50, 51);
    js.attend(clean);
    js.attend(dirty);
    const before = 20 * p.kvHeads * p.group * p.valueDim;
    expect(dirty.out.subarray(0, before)).toEqual(clean.out.subarray(0, before));
    if (Number.isNaN(poison)) {
      expect(Array.from(dirty.out.subarray(before)).filter(Number.isFinite)).toEqual([]);
    }
  });

  function poisonKeys(args: AttendArgs, from: number, to: number): void {
    const { k, v } = args.kv as TensorSource;
    k.fill(poison, from * args.kvHeads * args.headDim, to * args.kvHeads * args.headDim);
    v.fill(poison, from * args.kvHeads * args.valueDim, to * args.kvHeads * args.valueDim);
  }

  function maskOf(from: number, to: number): AttendArgs['mask'] {
    const data = new Uint8Array(p.queryTokens * p.keyTokens).fill(1);
    for (let i = 0; i < p.queryTokens; i++)
      data.fill(0, i * p.keyTokens + from, i * p.keyTokens + to);
    return { data, batchStride: 0, headStride: 0 };
  }

  function biasOf(from: number, to: number): AttendArgs['bias'] {
    const hidden = maskOf(from, to)!;
    const data = Float32Array.from(hidden.data, (visible) => (visible === 0 ? -Infinity : 0));
    return { ...hidden, data };
  }
});

test('a mask over whole blocks and the others', () => {
  const p = { ...SMALL, keyTokens: 200, queryTokens: 30, causal: false, mask: true, alibi: true };
  const { args, oracle } = inputs(p);
  for (const [from, to] of [
    [0, 70],
    [128, 192],
  ]) {
    for (let row = 0; row < args.heads * p.queryTokens; row++) {
      args.mask!.data.fill(0, row * p.keyTokens + from, row * p.keyTokens + to);
    }
  }
  js.attend(args);
  expectOracle('masked blocks', args, oracle);
});

describe('attendAsync', () => {
  const p = { ...SMALL, queryTokens: 160, keyTokens: 900, headDim: 32, valueDim: 32 };

  test('gives the bits of attend, with other calls in between', async () => {
    const expected = inputs(p).args;
    js.attend(expected);
    const runs = [inputs(p).args, inputs(p).args];
    const pending = runs.map((args) => js.attendAsync(args, new Int32Array(1)));
    js.attend({ ...inputs({ ...p, seed: 2 }).args });
    expect(await Promise.all(pending)).toEqual([true, true]);
    for (const args of runs) {
      expect(args.out).toEqual(expected.out);
      expect(args.lse).toEqual(expected.lse);
    }
  });

  test('lets the event loop turn while it works', async () => {
    let turns = 0;
    let done = false;
    const count = (): void => {
      turns++;
      if (!done) setImmediate(count);
    };
    setImmediate(count);
    await js.attendAsync(inputs({ ...p, queryTokens: 900 }).args, new Int32Array(1));
    done = true;
    expect(turns).toBeGreaterThan(1);
  });

  test('stops when it is cancelled, before or during the work', async () => {
    expect(await js.attendAsync(inputs(p).args, new Int32Array([1]))).toBe(false);
    const cancel = new Int32Array(new SharedArrayBuffer(4));
    const pending = js.attendAsync(inputs({ ...p, queryTokens: 900 }).args, cancel);
    Atomics.store(cancel, 0, 1);
    expect(await pending).toBe(false);
  });
});
