/** A step's sequences as a backend reads them: StepPlan of one layer group, once its blocks are assigned. */
import { EntrySlot, ShareSlot } from '../backend/contract';
import type { StepPlan } from '../backend/contract';
import { sharedRuns } from './cascade';
import type { SharedBlocks } from './cascade';
import type { RingGeometry } from './geometry';
import type { KvLayer } from './layer';
import type { PlannedEntry, PlannedStep } from './step-plan';

/** Shared tokens below which a run of their own costs more than it saves. */
const LEAST_SHARED_TOKENS = 256;
const NO_TREE = -1;

/** @param layerOf the entry's layer in question, or any other of its group */
export function stepTables(
  step: PlannedStep,
  geometry: RingGeometry,
  layerOf: (entry: PlannedEntry) => KvLayer,
): StepPlan {
  const { entries, cascade } = step;
  const layers = entries.map(layerOf);
  const slots = geometry.sinkBlocks + geometry.ringBlocks;
  const { sinkBlocks: tailSinks, ringBlocks: tailRing } = geometry.tail ?? NO_TAIL;
  const tailSlots = tailSinks + tailRing;
  const ids = new Int32Array(entries.length * (slots + tailSlots));
  const rows = new Float64Array(entries.length * EntrySlot.width);
  const trees: number[] = [];
  entries.forEach((entry, i) => {
    const { main, tail } = layers[i].ring;
    const at = i * (slots + tailSlots);
    ids.set(main.table.ids, at);
    if (tail !== null) ids.set(tail.table.ids, at + slots);
    const row = i * EntrySlot.width;
    const keyTokens = entry.start + entry.tokens;
    rows[row + EntrySlot.firstToken] = entry.firstRow;
    rows[row + EntrySlot.tokens] = entry.tokens;
    rows[row + EntrySlot.keyTokens] = keyTokens;
    rows[row + EntrySlot.ids] = at;
    rows[row + EntrySlot.tailIds] = at + slots;
    rows[row + EntrySlot.tailSinkOrdinals] = layers[i].tailSinkOrdinals;
    rows[row + EntrySlot.tailFirstOrdinal] = firstTailOrdinal(entry, layers[i]);
    rows[row + EntrySlot.tree] = addTree(entry, geometry, trees);
  });
  return {
    sinkBlocks: geometry.sinkBlocks,
    ringBlocks: geometry.ringBlocks,
    tailSinkBlocks: tailSinks,
    tailRingBlocks: tailRing,
    entries: rows,
    count: entries.length,
    ids,
    trees: Int32Array.from(trees),
    ...shareTables(cascade ? findShares(entries, geometry, layers) : [], geometry.blockTokens),
  };
}

/**
 * Whether the tables hold for another layer of the group too. Its tail differs where a step was dropped that only some
 * layers had appended: theirs no longer hold what the step took the place of.
 */
export function tailsAgree(
  plan: StepPlan,
  entries: readonly PlannedEntry[],
  layerOf: (entry: PlannedEntry) => KvLayer,
): boolean {
  return entries.every((entry, i) => {
    const planned = plan.entries[i * EntrySlot.width + EntrySlot.tailFirstOrdinal];
    return planned === firstTailOrdinal(entry, layerOf(entry));
  });
}

function firstTailOrdinal({ start, tokens }: PlannedEntry, layer: KvLayer): number {
  return Math.min(layer.firstTailOrdinal(start + tokens), Number.MAX_SAFE_INTEGER);
}

const NO_TAIL = { sinkBlocks: 0, ringBlocks: 0 };

/** Appends the entry's tree; returns where it begins. */
function addTree(
  { tree, start }: PlannedEntry,
  { window, sinkTokens }: RingGeometry,
  trees: number[],
): number {
  if (tree === null) return NO_TREE;
  const numbers = new Int32Array(tree.tokens * (tree.tokens + 1));
  tree.write(numbers, 0, window, sinkTokens - start);
  const at = trees.length;
  trees.push(...numbers);
  return at;
}

/** Runs of blocks from the first token on that several entries hold and that every row of theirs sees wholly. */
function findShares(
  entries: readonly PlannedEntry[],
  { window, blockTokens }: RingGeometry,
  layers: readonly KvLayer[],
): ReturnType<typeof sharedRuns> {
  const sequences = entries.map(({ start, tokens }, i): SharedBlocks => {
    const layer = layers[i];
    // Rows whose window has moved do not see the first keys; sinks in floats are another arena's.
    const hidden = start + tokens > window || layer.tailSinkOrdinals > 0;
    const whole = Math.floor(start / blockTokens);
    const blocks = hidden ? 0 : Math.min(whole, layer.firstTailOrdinal(start + tokens));
    return { idOf: (ordinal) => layer.ring.main.idOf(ordinal), blocks };
  });
  return sharedRuns(sequences, Math.ceil(LEAST_SHARED_TOKENS / blockTokens));
}

function shareTables(
  runs: ReturnType<typeof sharedRuns>,
  blockTokens: number,
): Pick<StepPlan, 'shares' | 'shareCount' | 'members'> {
  const shares = new Float64Array(runs.length * ShareSlot.width);
  const members: number[] = [];
  runs.forEach((run, i) => {
    const row = i * ShareSlot.width;
    shares[row + ShareSlot.firstKey] = run.first * blockTokens;
    shares[row + ShareSlot.lastKey] = run.last * blockTokens;
    shares[row + ShareSlot.member] = members.length;
    shares[row + ShareSlot.members] = run.members.length;
    members.push(...run.members);
  });
  return { shares, shareCount: runs.length, members: Int32Array.from(members) };
}
