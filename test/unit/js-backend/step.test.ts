/** Steps: every entry alone against the oracle, chains and trees, with and without a tail. */
import * as fc from 'fast-check';
import { EntrySlot, type AttendArgs, type AttendStepArgs } from '../../../lib/backend/contract';
import { attentionOracle, type OracleAttention } from '../../oracle';
import { expectClose, expectSameBits } from '../../support/compare';
import { Random } from '../../support/random';
import { isQuantised, type Rows } from '../../support/stored-rows';
import { normals, toBits } from '../../support/tensors';
import { attentionTolerance, lseTolerance } from '../../tolerances';
import { BLOCK_TOKENS, createArena, createTail, heldRows } from './held-sequence';
import { storeSequence, tablesFor, type TailExtent } from './held-sequence';
import { js } from './support';

const dtype = fc.constantFrom('f32' as const, 'bf16' as const, 'q8' as const, 'q4' as const);

const drawn = fc.record({
  seed: fc.nat(1e6),
  kvHeads: fc.integer({ min: 1, max: 2 }),
  group: fc.integer({ min: 1, max: 4 }),
  headDim: fc.integer({ min: 1, max: 20 }),
  valueDim: fc.integer({ min: 1, max: 20 }),
  keyDtype: dtype,
  valueDtype: dtype,
  rotateKeys: fc.boolean(),
  rotateValues: fc.boolean(),
  window: fc.oneof(fc.constant(Infinity), fc.integer({ min: 1, max: 150 })),
  sinkTokens: fc.integer({ min: 0, max: 80 }),
  sinkQ: fc.boolean(),
  softcap: fc.constantFrom(0, 2.5),
  alibi: fc.boolean(),
  sinkLogits: fc.boolean(),
  entries: fc.array(
    fc.record({
      before: fc.integer({ min: 0, max: 150 }),
      tokens: fc.oneof(fc.constant(1), fc.integer({ min: 1, max: 40 })),
      tree: fc.boolean(),
      recentBlocks: fc.integer({ min: 0, max: 1 }),
      sinkOrdinals: fc.integer({ min: 0, max: 1 }),
    }),
    { minLength: 1, maxLength: 3 },
  ),
});

type Drawn = typeof drawn extends fc.Arbitrary<infer T> ? T : never;

/** Depths, and [tokens][tokens]: 1 where a row sees a token. */
interface Tree {
  depths: number[];
  seen: number[];
}

function randomTree(random: Random, tokens: number, window: number): Tree {
  const depths: number[] = [];
  const ancestors: number[][] = [];
  const seen = new Array<number>(tokens * tokens).fill(0);
  for (let i = 0; i < tokens; i++) {
    const parent = random.int(-1, i - 1);
    ancestors.push(parent < 0 ? [i] : [i, ...ancestors[parent]]);
    depths.push(ancestors[i].length - 1);
    for (const j of ancestors[i]) if (depths[i] - depths[j] < window) seen[i * tokens + j] = 1;
  }
  return { depths, seen };
}

test('an entry attends as if alone, be it a chain or a tree', () => {
  fc.assert(
    fc.property(drawn, (p) => {
      const { args, entries } = stepOf(p);
      js.attendStep(args);
      for (const entry of entries) checkEntry(p, args, entry);
    }),
    { numRuns: 50 },
  );
});

interface Entry {
  firstToken: number;
  tokens: number;
  keyTokens: number;
  tree: Tree | null;
  rows: Rows;
  kv: Extract<AttendArgs['kv'], { type: 'cache' }>;
  extent: TailExtent;
}

function stepOf(p: Drawn): { args: AttendStepArgs; entries: Entry[] } {
  const random = new Random(p.seed);
  const { kvHeads, headDim, valueDim } = p;
  const heads = kvHeads * p.group;
  const blocks = 4;
  const arena = createArena(p, blocks * p.entries.length);
  const tail = createTail(p, blocks * p.entries.length);
  const tables = tablesFor(random, p.entries.length, blocks);
  const tailTables = tablesFor(random, p.entries.length, blocks);
  const hasTail = isQuantised(p.keyDtype) || isQuantised(p.valueDtype);

  const entries: Entry[] = [];
  const slots: number[] = [];
  const ids: number[] = [-1];
  const trees: number[] = [77];
  let firstToken = 0;
  p.entries.forEach(({ before, tokens, tree: isTree, recentBlocks, sinkOrdinals }, i) => {
    const keyTokens = before + tokens;
    const rows = {
      k: normals(random, keyTokens * kvHeads * headDim, 'f32'),
      v: normals(random, keyTokens * kvHeads * valueDim, 'f32'),
    };
    const whole = Math.floor(keyTokens / BLOCK_TOKENS);
    const firstOrdinal = hasTail
      ? Math.max(0, whole - recentBlocks)
      : Math.ceil(keyTokens / BLOCK_TOKENS);
    const extent = {
      sinkOrdinals: hasTail ? Math.min(sinkOrdinals, firstOrdinal) : 0,
      firstOrdinal,
    };
    const kv = storeSequence(arena, tables[i], tail, tailTables[i], rows, extent);
    const tree = isTree ? randomTree(random, tokens, p.window) : null;

    const at = slots.length;
    slots.push(...new Array<number>(EntrySlot.width).fill(NaN));
    slots[at + EntrySlot.firstToken] = firstToken;
    slots[at + EntrySlot.tokens] = tokens;
    slots[at + EntrySlot.keyTokens] = keyTokens;
    slots[at + EntrySlot.ids] = ids.length;
    ids.push(...tables[i].ids);
    slots[at + EntrySlot.tailIds] = ids.length;
    ids.push(...tailTables[i].ids);
    slots[at + EntrySlot.tailSinkOrdinals] = extent.sinkOrdinals;
    slots[at + EntrySlot.tailFirstOrdinal] = hasTail ? extent.firstOrdinal : 0;
    slots[at + EntrySlot.tree] = tree === null ? -1 : trees.length;
    if (tree !== null) trees.push(...tree.depths, ...tree.seen);
    entries.push({ firstToken, tokens, keyTokens, tree, rows, kv, extent });
    firstToken += tokens;
  });

  const args: AttendStepArgs = {
    q: Float32Array.from(normals(random, firstToken * heads * headDim, 'f32')),
    sinkQ: p.sinkQ ? Float32Array.from(normals(random, firstToken * heads * headDim, 'f32')) : null,
    qDtype: 'f32',
    out: new Float32Array(firstToken * heads * valueDim).fill(NaN),
    outDtype: 'f32',
    lse: new Float32Array(firstToken * heads).fill(NaN),
    tokens: firstToken,
    ...{ heads, kvHeads, headDim, valueDim },
    arena,
    tailArena: hasTail ? tail : null,
    plan: {
      ...{ sinkBlocks: 0, ringBlocks: blocks, tailSinkBlocks: 0, tailRingBlocks: blocks },
      entries: Float64Array.from(slots),
      count: p.entries.length,
      ids: Int32Array.from(ids),
      trees: Int32Array.from(trees),
      shares: new Float64Array(0),
      shareCount: 0,
      members: new Int32Array(0),
    },
    ...{ window: p.window, sinkTokens: p.sinkTokens, softcap: p.softcap },
    scale: 1 / Math.sqrt(headDim),
    alibiSlopes: p.alibi ? Float32Array.from({ length: heads }, (_, h) => 2 ** -(h + 2)) : null,
    sinkLogits: p.sinkLogits ? Float32Array.from(normals(random, heads, 'f32')) : null,
    precision: 'exact',
    stats: null,
  };
  return { args, entries };
}

function checkEntry(p: Drawn, args: AttendStepArgs, entry: Entry): void {
  const { heads, kvHeads, headDim, valueDim, scale, softcap, window, sinkTokens } = args;
  const { firstToken, tokens, keyTokens, tree, kv } = entry;
  const rowsOf = (x: Float32Array, width: number): Float32Array =>
    x.slice(firstToken * heads * width, (firstToken + tokens) * heads * width);
  const q = rowsOf(args.q as Float32Array, headDim);
  const sinkQ = args.sinkQ === null ? undefined : rowsOf(args.sinkQ as Float32Array, headDim);
  const shape = { queryTokens: tokens, keyTokens, heads, kvHeads, headDim, valueDim };
  const oracle: OracleAttention = {
    ...shape,
    ...{ batch: 1, causal: true, window, sinkTokens, scale, softcap },
    ...{ q, sinkQ, ...heldRows(p, entry.rows, entry.extent) },
    alibiSlopes: args.alibiSlopes ?? undefined,
    sinkLogits: args.sinkLogits ?? undefined,
  };
  if (tree !== null) describeTree(oracle, tree);
  const expected = attentionOracle(oracle);
  const out = rowsOf(args.out as Float32Array, valueDim);
  const lse = rowsOf(args.lse!, 1);
  expectClose('out', out, expected.out, attentionTolerance('f32', expected.largestScore));
  expectClose('lse', lse, expected.lse, lseTolerance('f32', expected.largestScore));
  if (tree !== null) return;

  const alone: AttendArgs = {
    ...args,
    ...shape,
    ...{ batch: 1, causal: true, mask: null, bias: null, dropout: null },
    kv: args.tailArena === null ? { ...kv, tail: null } : kv,
    q: toBits(q, 'f32'),
    sinkQ: sinkQ ?? null,
    out: new Float32Array(out.length),
    lse: new Float32Array(lse.length),
  };
  js.attend(alone);
  expectSameBits('out of attend', out, alone.out);
  expectSameBits('lse of attend', lse, alone.lse!);
}

/** A tree for the oracle: a mask instead of the causal line and window, a bias instead of ALiBi. */
function describeTree(a: OracleAttention, { depths, seen }: Tree): void {
  const { queryTokens: tokens, keyTokens, heads, window = Infinity, sinkTokens = 0 } = a;
  const before = keyTokens - tokens;
  const mask: number[] = [];
  const bias: number[] = [];
  for (let h = 0; h < heads; h++) {
    for (let i = 0; i < tokens; i++) {
      for (let j = 0; j < keyTokens; j++) {
        const position = before + depths[i];
        const inStep = j >= before;
        const held = j > position - window || j < sinkTokens;
        mask.push(inStep ? seen[i * tokens + j - before] : Number(held));
        const distance = (inStep ? before + depths[j - before] : j) - position;
        bias.push((a.alibiSlopes?.[h] ?? 0) * distance);
      }
    }
  }
  a.causal = false;
  a.window = undefined;
  a.alibiSlopes = undefined;
  a.mask = { data: mask, batch: 1, heads };
  a.bias = { data: bias, batch: 1, heads };
}
