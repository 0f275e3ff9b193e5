/**
 * Attention: out[b,i,h,:] = sum_j softmax_j(score[b,h,i,j]) v[b,j,h/G,:], see AttendArgs for the score; a tile of queries
 * at a time (tile.ts). Inputs f32, f16 or bf16; everything between is f64.
 */
import { performance } from 'node:perf_hooks';
import type { AttendArgs, AttendStepArgs, CancelFlag } from '../contract';
import { EntrySlot } from '../contract';
import { ArenaBlocks, keyBlocks } from './key-blocks';
import type { Problem, Span } from './problem';
import { Tile } from './tile';
import { leaveWorkspace, queriesPerTile, takeWorkspace } from './workspace';

/** An async call lets the event loop turn after this long. */
const SLICE_MS = 4;
const NO_TREES = new Int32Array(0);

export function attend(args: AttendArgs): void {
  const steps = attendSteps(args);
  while (steps.next().done !== true);
}

export async function attendAsync(args: AttendArgs, cancel: CancelFlag): Promise<boolean> {
  const steps = attendSteps(args);
  let sliceEnd = -Infinity; // the caller goes on before any work is done
  for (;;) {
    if (performance.now() > sliceEnd) {
      await new Promise((resolve) => setImmediate(resolve));
      sliceEnd = performance.now() + SLICE_MS;
    }
    if (Atomics.load(cancel, 0) !== 0) {
      steps.return();
      return false;
    }
    if (steps.next().done === true) return true;
  }
}

/** The whole call, yielding after each (tile, block of keys): a millisecond of work or two. */
function* attendSteps(args: AttendArgs): Generator<void, void, void> {
  const { batch, queryTokens, keyTokens, heads, kvHeads, headDim, valueDim } = args;
  const workspace = takeWorkspace(heads / kvHeads, headDim, valueDim);
  const span = { batch: 0, firstToken: 0, queryTokens, keyTokens, trees: NO_TREES, tree: -1 };
  try {
    const tile = new Tile(args, keyBlocks(args, workspace), workspace);
    for (; span.batch < batch; span.batch++) {
      span.firstToken = span.batch * queryTokens;
      yield* attendSpan(tile, span, args);
    }
  } finally {
    leaveWorkspace(workspace);
  }
}

/** Every tile of a sequence. */
function* attendSpan(tile: Tile, span: Span, problem: Problem): Generator<void, void, void> {
  const { queryTokens } = span;
  const { heads, kvHeads } = problem;
  const tileQueries = queriesPerTile(heads / kvHeads);
  for (let kvHead = 0; kvHead < kvHeads; kvHead++) {
    for (let query = 0; query < queryTokens; query += tileQueries) {
      tile.begin(span, kvHead, query, Math.min(tileQueries, queryTokens - query));
      yield* tile.foldVisible();
      tile.finish();
    }
  }
}

/** Each entry by itself: what entries share is read for each of them. */
export function attendStep(args: AttendStepArgs): void {
  const { arena, tailArena, plan, heads, kvHeads, headDim, valueDim } = args;
  const { ids, sinkBlocks, ringBlocks, tailSinkBlocks, tailRingBlocks, entries } = plan;
  const problem = { ...args, causal: true, mask: null, bias: null, dropout: null };
  const workspace = takeWorkspace(heads / kvHeads, headDim, valueDim);
  const table = { ids, sinkBlocks, ringBlocks };
  const tailTable = { ids, sinkBlocks: tailSinkBlocks, ringBlocks: tailRingBlocks };
  const blocks = new ArenaBlocks(arena, table, tailArena, tailTable, workspace);
  const tile = new Tile(problem, blocks, workspace);
  const span = {
    batch: 0,
    firstToken: 0,
    queryTokens: 0,
    keyTokens: 0,
    trees: plan.trees,
    tree: -1,
  };
  for (let entry = 0; entry < plan.count; entry++) {
    const at = entry * EntrySlot.width;
    span.firstToken = entries[at + EntrySlot.firstToken];
    span.queryTokens = entries[at + EntrySlot.tokens];
    span.keyTokens = entries[at + EntrySlot.keyTokens];
    span.tree = entries[at + EntrySlot.tree];
    blocks.aim(
      entries[at + EntrySlot.ids],
      entries[at + EntrySlot.tailIds],
      entries[at + EntrySlot.tailSinkOrdinals],
      entries[at + EntrySlot.tailFirstOrdinal],
    );
    const steps = attendSpan(tile, span, problem);
    while (steps.next().done !== true);
  }
  leaveWorkspace(workspace);
}
