/** Steps of several paged sequences at the level of the backend: their plans, their calls, and their oracle. */
import { getBackend } from '../../lib/backend';
import type { AttendArgs } from '../../lib/backend/contract';
import { EntrySlot, ShareSlot } from '../../lib/backend/contract-cache';
import type { AttendStepArgs, StepPlan } from '../../lib/backend/contract-cache';
import { attentionTolerance, coarser, lseTolerance } from '../tolerances';
import { expectClose, toNumbers } from './compare';
import type { FloatName } from './numbers';
import {
  chainOf,
  expectedRows,
  type PagedSequence,
  type PagedStore,
  type RowFeatures,
  type Tree,
} from './paged-sequences';
import { emptyOut, normals, toBits } from './tensors';

export interface StepSequence {
  sequence: PagedSequence;
  tokens: number;
  tree?: Tree;
}

/** Keys [firstKey, lastKey) that entries `members` hold in the same blocks. */
export interface StepShare {
  firstKey: number;
  lastKey: number;
  members: number[];
}

export interface StepCase {
  dtype: FloatName;
  group: number;
  sinkQ: boolean;
  precision: 'exact' | 'fast';
  features: RowFeatures;
}

export interface PreparedStep {
  args: AttendStepArgs;
  q: number[];
  sinkQ: number[] | null;
}

export function planOf(entries: readonly StepSequence[], shares: readonly StepShare[]): StepPlan {
  const slots = Math.max(0, ...entries.map(({ sequence }) => sequence.table.ringBlocks));
  const rows = new Float64Array(entries.length * EntrySlot.width);
  const ids: number[] = [];
  const trees: number[] = [];
  const addTable = (table: Int32Array): number => {
    const at = ids.length;
    ids.push(...table, ...new Array<number>(slots - table.length).fill(-1));
    return at;
  };
  let firstToken = 0;
  entries.forEach(({ sequence, tokens, tree }, i) => {
    const row = i * EntrySlot.width;
    const { tail } = sequence;
    rows[row + EntrySlot.firstToken] = firstToken;
    rows[row + EntrySlot.tokens] = tokens;
    rows[row + EntrySlot.keyTokens] = sequence.keyTokens;
    rows[row + EntrySlot.ids] = addTable(sequence.table.ids);
    rows[row + EntrySlot.tailIds] = tail === null ? 0 : addTable(tail.table.ids);
    rows[row + EntrySlot.tailSinkOrdinals] = tail?.sinkOrdinals ?? 0;
    rows[row + EntrySlot.tailFirstOrdinal] = tail?.firstOrdinal ?? Number.MAX_SAFE_INTEGER;
    rows[row + EntrySlot.tree] = tree === undefined ? -1 : trees.length;
    if (tree !== undefined) trees.push(...tree.depths, ...tree.sees.flat().map(Number));
    firstToken += tokens;
  });
  const runs = new Float64Array(shares.length * ShareSlot.width);
  const members: number[] = [];
  shares.forEach((share, i) => {
    const row = i * ShareSlot.width;
    runs[row + ShareSlot.firstKey] = share.firstKey;
    runs[row + ShareSlot.lastKey] = share.lastKey;
    runs[row + ShareSlot.member] = members.length;
    runs[row + ShareSlot.members] = share.members.length;
    members.push(...share.members);
  });
  return {
    ...{ sinkBlocks: 0, ringBlocks: slots, tailSinkBlocks: 0, tailRingBlocks: slots },
    ...{ entries: rows, count: entries.length },
    ...{ ids: Int32Array.from(ids), trees: Int32Array.from(trees) },
    ...{ shares: runs, shareCount: shares.length, members: Int32Array.from(members) },
  };
}

export function prepareStep(
  c: StepCase,
  store: PagedStore,
  entries: readonly StepSequence[],
  shares: readonly StepShare[] = [],
): PreparedStep {
  const { kvHeads, headDim, valueDim } = store.shape;
  const heads = kvHeads * c.group;
  const tokens = entries.reduce((sum, entry) => sum + entry.tokens, 0);
  const q = normals(store.random, tokens * heads * headDim, c.dtype);
  const sinkQ = c.sinkQ ? normals(store.random, q.length, c.dtype) : null;
  const args: AttendStepArgs = {
    ...{ q: toBits(q, c.dtype), sinkQ: sinkQ && toBits(sinkQ, c.dtype), qDtype: c.dtype },
    out: emptyOut([tokens, heads, valueDim], c.dtype).storage.data,
    outDtype: c.dtype,
    lse: new Float32Array(tokens * heads).fill(NaN),
    ...{ tokens, heads, kvHeads, headDim, valueDim, arena: store.main, tailArena: store.tail },
    ...{ plan: planOf(entries, shares), precision: c.precision, stats: null },
    ...c.features,
  };
  return { args, q, sinkQ };
}

/** The call that attends one entry alone, into fresh memory. */
export function callAlone(
  step: PreparedStep,
  store: PagedStore,
  entries: readonly StepSequence[],
  index: number,
): AttendArgs {
  const { args } = step;
  const { sequence, tokens } = entries[index];
  const first = entries.slice(0, index).reduce((sum, entry) => sum + entry.tokens, 0);
  const rows = <T extends Float32Array | Uint16Array>(x: T, width: number) =>
    x.slice(first * width, (first + tokens) * width) as T;
  const width = args.heads * args.headDim;
  return {
    ...args,
    ...{ q: rows(args.q, width), sinkQ: args.sinkQ && rows(args.sinkQ, width) },
    out: new (args.out.constructor as Float32ArrayConstructor)(tokens * args.heads * args.valueDim),
    lse: new Float32Array(tokens * args.heads),
    ...{ batch: 1, queryTokens: tokens, keyTokens: sequence.keyTokens, causal: true },
    kv: { type: 'cache', arena: store.main, table: sequence.table, tail: sequence.tail },
    ...{ mask: null, bias: null, dropout: null },
  };
}

/** The step's result against the oracle, entry by entry. */
export function checkStep(
  what: string,
  c: StepCase,
  store: PagedStore,
  entries: readonly StepSequence[],
  step: PreparedStep,
): void {
  const { args } = step;
  getBackend().attendStep(args);
  const dtype = coarser(coarser(c.dtype, store.shape.dtype), store.shape.tailDtype ?? 'f32');
  const out = toNumbers(args.out, c.dtype);
  let first = 0;
  entries.forEach(({ sequence, tokens, tree }, i) => {
    const part = <T>(x: ArrayLike<T>, width: number) =>
      Array.from(x).slice(first * width, (first + tokens) * width);
    const width = args.heads * args.headDim;
    const { window, sinkTokens } = c.features;
    const sees = tree ?? chainOf(tokens, window, sinkTokens - (sequence.keyTokens - tokens));
    const sinkQ = step.sinkQ && part(step.sinkQ, width);
    const rows = part(step.q, width);
    const expected = expectedRows(store.shape, args.heads, sequence, rows, sinkQ, sees, c.features);
    const { largestScore } = expected;
    expectClose(
      `out of entry ${i}, ${what}`,
      part(out, args.heads * args.valueDim),
      expected.out,
      attentionTolerance(dtype, largestScore, c.precision),
    );
    expectClose(
      `lse of entry ${i}, ${what}`,
      part(args.lse!, args.heads),
      expected.lse,
      lseTolerance(dtype, largestScore, c.precision),
    );
    first += tokens;
  });
}
