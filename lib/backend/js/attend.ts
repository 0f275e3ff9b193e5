/**
 * Attention: out[b,i,h,:] = sum_j softmax_j(score[b,h,i,j]) v[b,j,h/G,:], see AttendArgs for the score.
 *
 * A tile is a few queries times all G heads of a group, rows query major. One pass over the visible blocks of keys
 * serves the whole tile: scores (panel product), weights (scores.ts), out += weights * V (panel product).
 * Inputs f32, f16 or bf16; everything between is f64.
 */
import { performance } from 'node:perf_hooks';
import type { AttendArgs, CancelFlag } from '../contract';
import { widen } from './rows';
import type { KeyBlocks } from './key-blocks';
import { keyBlocks } from './key-blocks';
import type { Panel, Rows } from './panel';
import { LANES, multiplyPanel, roundUpToLanes } from './panel';
import type { RowView } from './scores';
import { foldRow, maskHides, viewRow } from './scores';
import type { Workspace } from './workspace';
import { RUN_STRIDE, leaveWorkspace, takeWorkspace } from './workspace';

/** Rows of a tile where the group allows: enough to share a gathered block, few enough to stay in L2. */
const TILE_ROWS = 64;
/** An async call lets the event loop turn after this long. */
const SLICE_MS = 4;

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
  const { batch, queryTokens, heads, kvHeads, headDim, valueDim } = args;
  const group = heads / kvHeads;
  const tileQueries = Math.max(1, Math.floor(TILE_ROWS / group));
  const workspace = takeWorkspace(tileQueries * group, headDim, valueDim);
  try {
    const tile = new Tile(args, workspace);
    for (let b = 0; b < batch; b++) {
      for (let kvHead = 0; kvHead < kvHeads; kvHead++) {
        for (let query = 0; query < queryTokens; query += tileQueries) {
          tile.begin(b, kvHead, query, Math.min(tileQueries, queryTokens - query));
          yield* tile.foldVisible();
          tile.finish();
        }
      }
    }
  } finally {
    leaveWorkspace(workspace);
  }
}

/** Rows of one (batch, KV head), and their softmax states over the keys folded so far. */
class Tile {
  private batch = 0;
  private kvHead = 0;
  private firstQuery = 0;
  private rows = 0;
  private readonly group: number;
  private readonly blocks: KeyBlocks;
  private readonly view: RowView = newRowView();
  private readonly lastView: RowView = newRowView();
  /** Where the next panel product reads and writes; set before each. */
  private readonly panel: Panel;
  private readonly weights: Rows;
  private readonly target: Rows;

  constructor(
    private readonly args: AttendArgs,
    private readonly workspace: Workspace,
  ) {
    this.group = args.heads / args.kvHeads;
    this.blocks = keyBlocks(args, workspace);
    this.panel = { ...this.blocks.keys };
    this.weights = { ...workspace.scores };
    this.target = { ...workspace.scores };
  }

  begin(batch: number, kvHead: number, firstQuery: number, queries: number): void {
    this.batch = batch;
    this.kvHead = kvHead;
    this.firstQuery = firstQuery;
    this.rows = queries * this.group;
    this.workspace.states.clear(this.rows);
    const { headDim, scale } = this.args;
    const widened = this.workspace.row;
    const scaled = this.workspace.queries.data;
    for (let row = 0; row < this.rows; row++) {
      widen(this.args.q, this.args.qDtype, this.outputRow(row) * headDim, widened, 0, headDim);
      for (let d = 0; d < headDim; d++) scaled[row * headDim + d] = widened[d] * scale;
    }
  }

  /** Folds every block that holds a key some row sees: the sinks before the window, then the window. */
  *foldVisible(): Generator<void, void, void> {
    const { args, batch, view, lastView } = this;
    viewRow(args, view, batch, this.firstQuery);
    viewRow(args, lastView, batch, this.firstQuery + this.rows / this.group - 1);
    const { start } = view;
    yield* this.foldKeys(0, Math.min(lastView.sinkEnd, start));
    yield* this.foldKeys(start, lastView.end);
  }

  private *foldKeys(start: number, end: number): Generator<void, void, void> {
    const { tokens } = this.blocks;
    for (let key = start; key < end;) {
      const from = key % tokens;
      const to = Math.min(tokens, from + end - key);
      const ordinal = (key - from) / tokens;
      if (!this.masked(key - from, from, to)) {
        this.blocks.load(this.batch, this.kvHead, ordinal, from, to);
        this.scoreKeys(from, to);
        this.foldScores(key - from, from, to);
        this.addValues();
      }
      key += to - from;
      yield;
    }
  }

  private scoreKeys(from: number, to: number): void {
    const { panel, target, rows } = this;
    const { queries, scores } = this.workspace;
    const { headDim } = this.args;
    const { keys } = this.blocks;
    const first = from - (from % LANES);
    const last = roundUpToLanes(to);
    for (let row = 0; row < rows; row++) {
      scores.data.fill(0, row * scores.stride + first, row * scores.stride + last);
    }
    panel.data = keys.data;
    panel.stride = keys.stride;
    target.data = scores.data;
    target.stride = scores.stride;
    for (let slot = first; slot < last; slot += LANES) {
      panel.offset = keys.offset + slot * headDim;
      target.offset = slot;
      multiplyPanel(queries, panel, target, rows, headDim);
    }
  }

  /** True if the mask hides the keys from every row: nothing of them is then read. */
  private masked(firstKey: number, from: number, to: number): boolean {
    if (this.args.mask === null) return false;
    for (let row = 0; row < this.rows; row++) {
      this.look(row);
      if (!maskHides(this.args, this.args.mask, this.view, firstKey, from, to)) return false;
    }
    return true;
  }

  private foldScores(firstKey: number, from: number, to: number): void {
    for (let row = 0; row < this.rows; row++) {
      this.look(row);
      foldRow(this.args, this.workspace, row, this.view, firstKey, from, to);
    }
  }

  /** Sets `view` to a row of the tile; rows are looked at in ascending order. */
  private look(row: number): void {
    const member = row % this.group;
    if (member === 0) {
      viewRow(this.args, this.view, this.batch, this.firstQuery + row / this.group);
    }
    this.view.head = this.kvHead * this.group + member;
  }

  /** out += weights * V; neighbouring rows that see the same keys go together. */
  private addValues(): void {
    const { runs, runCounts } = this.workspace;
    for (let row = 0; row < this.rows;) {
      let alike = 1;
      while (row + alike < this.rows && sameRuns(this.workspace, row, row + alike)) alike++;
      const firstRun = row * RUN_STRIDE;
      for (let run = firstRun; run < firstRun + 2 * runCounts[row]; run += 2) {
        this.addRun(row, alike, runs[run], runs[run + 1]);
      }
      row += alike;
    }
  }

  private addRun(row: number, rows: number, from: number, to: number): void {
    const { panel, weights, target, workspace } = this;
    const { values } = this.blocks;
    const { out } = workspace.states;
    weights.offset = row * weights.stride + from;
    panel.data = values.data;
    panel.stride = values.stride;
    target.data = out.data;
    target.stride = out.stride;
    for (let d = 0; d < out.stride; d += LANES) {
      panel.offset = values.offset + from * values.stride + d;
      target.offset = row * out.stride + d;
      multiplyPanel(weights, panel, target, rows, to - from);
    }
  }

  /** Joins the sink logits, normalises and writes. */
  finish(): void {
    const { out, outDtype, lse, valueDim, sinkLogits } = this.args;
    const { states } = this.workspace;
    for (let row = 0; row < this.rows; row++) {
      const index = this.outputRow(row);
      // A sink logit alone makes no output: rows without keys stay zeros.
      if (sinkLogits !== null && states.sum[row] !== 0) {
        const logit = sinkLogits[index % this.args.heads];
        const max = states.raise(row, logit);
        states.sum[row] += Math.exp(logit - max);
      }
      states.write(row, out, outDtype, index * valueDim);
      if (lse !== null) lse[index] = states.lse(row);
    }
  }

  /** Row of the tile as a row of q and out: (batch, query, head). */
  private outputRow(row: number): number {
    const { queryTokens, heads } = this.args;
    const member = row % this.group;
    const query = this.firstQuery + (row - member) / this.group;
    return (this.batch * queryTokens + query) * heads + this.kvHead * this.group + member;
  }
}

function newRowView(): RowView {
  return { batch: 0, head: 0, query: 0, position: 0, sinkEnd: 0, start: 0, end: 0 };
}

function sameRuns(workspace: Workspace, a: number, b: number): boolean {
  const { runs, runCounts } = workspace;
  if (runCounts[a] !== runCounts[b]) return false;
  for (let i = 0; i < 2 * runCounts[a]; i++) {
    if (runs[a * RUN_STRIDE + i] !== runs[b * RUN_STRIDE + i]) return false;
  }
  return true;
}
