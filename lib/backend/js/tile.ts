/**
 * A few queries times all G heads of a group, rows query major, and the one pass over their visible blocks of keys:
 * scores (panel product), weights (scores.ts), out += weights * V (panel product). Everything but K and V is f64.
 */
import type { FloatData } from '../../core/dtype';
import type { KeyBlocks } from './key-blocks';
import type { Panel, Rows } from './panel';
import { LANES, multiplyPanel, roundUpToLanes } from './panel';
import type { Problem, Span } from './problem';
import { rotate, rotateBack } from './rotate';
import { widen } from './rows';
import type { RowView } from './scores';
import { foldRow, maskHides, viewRow } from './scores';
import { writeKeyStatistics, writeMasses } from './statistics';
import type { Workspace } from './workspace';
import { RUN_STRIDE } from './workspace';

const NO_SPAN: Span = {
  batch: 0,
  firstToken: 0,
  queryTokens: 0,
  keyTokens: 0,
  trees: new Int32Array(0),
  tree: -1,
};

/** Rows of one (sequence, KV head), and their softmax states over the keys folded so far. */
export class Tile {
  private span: Span = NO_SPAN;
  private kvHead = 0;
  private firstQuery = 0;
  private rows = 0;
  private readonly group: number;
  private readonly view: RowView = {
    span: NO_SPAN,
    head: 0,
    query: 0,
    position: 0,
    sinkEnd: 0,
    start: 0,
    end: 0,
  };
  /** What keys are multiplied with at the moment: the queries, or those for sinks. */
  private queries: Rows;
  /** Where the next panel product reads and writes; set before each. */
  private readonly panel: Panel;
  private readonly weights: Rows;
  private readonly target: Rows;

  constructor(
    private readonly problem: Problem,
    private readonly blocks: KeyBlocks,
    private readonly workspace: Workspace,
  ) {
    this.group = problem.heads / problem.kvHeads;
    this.queries = workspace.queries;
    this.panel = { ...blocks.keys };
    this.weights = { ...workspace.scores };
    this.target = { ...workspace.scores };
  }

  begin(span: Span, kvHead: number, firstQuery: number, queries: number): void {
    const { workspace } = this;
    const { q, sinkQ } = this.problem;
    this.span = span;
    this.kvHead = kvHead;
    this.firstQuery = firstQuery;
    this.rows = queries * this.group;
    workspace.states.clear(this.rows);
    this.packQueries(q, workspace.queries);
    if (sinkQ !== null) this.packQueries(sinkQ, workspace.sinkQueries);
  }

  /** The tile's rows of q times the scale, turned where keys are. */
  private packQueries(q: FloatData, { data }: Rows): void {
    const { qDtype, headDim, scale } = this.problem;
    const { row: widened } = this.workspace;
    for (let row = 0; row < this.rows; row++) {
      widen(q, qDtype, this.outputRow(row) * headDim, widened, 0, headDim);
      const at = row * headDim;
      for (let d = 0; d < headDim; d++) data[at + d] = widened[d] * scale;
      if (this.blocks.rotateKeys) rotate(data, at, headDim);
    }
  }

  /** Folds every block that holds a key some row sees: the sinks before the window, then the window. */
  *foldVisible(): Generator<void, void, void> {
    const { problem, span, view, workspace } = this;
    let sinkEnd = 0;
    let start = Infinity;
    let end = 0;
    for (let i = 0; i < this.rows / this.group; i++) {
      viewRow(problem, view, span, this.firstQuery + i);
      sinkEnd = Math.max(sinkEnd, view.sinkEnd);
      start = Math.min(start, view.start);
      end = Math.max(end, span.tree < 0 ? view.end : span.keyTokens);
    }
    // Keys below this one meet queries of their own.
    const split = problem.sinkQ === null ? 0 : Math.min(problem.sinkTokens, end);
    this.queries = split > 0 ? workspace.sinkQueries : workspace.queries;
    yield* this.foldKeys(0, Math.min(sinkEnd, start));
    yield* this.foldKeys(start, split);
    this.queries = workspace.queries;
    yield* this.foldKeys(Math.max(start, split), end);
  }

  private *foldKeys(start: number, end: number): Generator<void, void, void> {
    const { tokens } = this.blocks;
    for (let key = start; key < end;) {
      const from = key % tokens;
      const to = Math.min(tokens, from + end - key);
      const ordinal = (key - from) / tokens;
      if (!this.masked(key - from, from, to)) {
        this.blocks.load(this.span.batch, this.kvHead, ordinal, from, to);
        this.scoreKeys(from, to);
        this.foldScores(key - from, from, to);
        this.addValues();
      }
      key += to - from;
      yield;
    }
  }

  private scoreKeys(from: number, to: number): void {
    const { panel, target, rows, queries } = this;
    const { scores } = this.workspace;
    const { headDim } = this.problem;
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
    if (this.problem.mask === null) return false;
    for (let row = 0; row < this.rows; row++) {
      this.look(row);
      if (!maskHides(this.problem.mask, this.view, firstKey, from, to)) return false;
    }
    return true;
  }

  private foldScores(firstKey: number, from: number, to: number): void {
    for (let row = 0; row < this.rows; row++) {
      this.look(row);
      foldRow(this.problem, this.workspace, row, this.view, firstKey, from, to);
    }
  }

  /** Sets `view` to a row of the tile; rows are looked at in ascending order. */
  private look(row: number): void {
    const member = row % this.group;
    if (member === 0) {
      viewRow(this.problem, this.view, this.span, this.firstQuery + row / this.group);
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
    const { out, outDtype, lse, valueDim, sinkLogits, stats } = this.problem;
    const { states } = this.workspace;
    for (let row = 0; row < this.rows; row++) {
      const index = this.outputRow(row);
      let sinkLogit = 0;
      if (stats !== null) writeKeyStatistics(stats, states, row, index);
      // A sink logit alone makes no output: rows without keys stay zeros.
      if (sinkLogits !== null && states.sum[row] !== 0) {
        const logit = sinkLogits[index % this.problem.heads];
        const max = states.raise(row, logit);
        sinkLogit = Math.exp(logit - max);
        states.sum[row] += sinkLogit;
      }
      if (stats !== null) writeMasses(stats, states, row, index, sinkLogit);
      if (this.blocks.rotateValues) rotateBack(states.out.data, row * states.out.stride, valueDim);
      states.write(row, out, outDtype, index * valueDim);
      if (lse !== null) lse[index] = states.lse(row);
    }
  }

  /** Row of the tile as a row of q and out: (token, head). */
  private outputRow(row: number): number {
    const member = row % this.group;
    const token = this.span.firstToken + this.firstQuery + (row - member) / this.group;
    return token * this.problem.heads + this.kvHead * this.group + member;
  }
}

function sameRuns(workspace: Workspace, a: number, b: number): boolean {
  const { runs, runCounts } = workspace;
  if (runCounts[a] !== runCounts[b]) return false;
  for (let i = 0; i < 2 * runCounts[a]; i++) {
    if (runs[a * RUN_STRIDE + i] !== runs[b * RUN_STRIDE + i]) return false;
  }
  return true;
}
