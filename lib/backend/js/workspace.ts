/**
 * The memory one attend call works in, for one tile of query rows and one block of keys. A row is (query, head of the
 * group), query major. A finished call leaves its workspace for the next one of the same shape, so that decoding
 * allocates nothing; an async call keeps its own over all its turns.
 */
import { panelElements } from './blocks';
import { RowStates } from './states';
import type { Rows } from './panel';

/** Rows of a tile where the group allows: enough to share a gathered block, few enough to stay in L2. */
const TILE_ROWS = 64;

export function queriesPerTile(group: number): number {
  return Math.max(1, Math.floor(TILE_ROWS / group));
}

/** No block has more token slots, in an arena or over a tensor. */
export const MAX_BLOCK_TOKENS = 64;
/** At most every other key of a block begins a run. */
const MAX_RUNS = MAX_BLOCK_TOKENS / 2;

export class Workspace {
  /** [rows, headDim], times the scale. */
  readonly queries: Rows;
  /** The same for keys below sinkTokens, made when first needed. */
  private sinks: Rows | null = null;
  /** [rows, block tokens]: scores, then weights. */
  readonly scores: Rows;
  readonly states: RowStates;
  /** Visible keys of each row as runs [from, to) of block slots: [rows][MAX_RUNS][2]. */
  readonly runs: Int32Array;
  readonly runCounts: Int32Array;
  /** K of a block as panels, V as rows. */
  readonly keys: Float32Array;
  readonly values: Float32Array;
  /** A row of Q, K or V on its way, widened. */
  readonly row: Float32Array;

  constructor(
    readonly rows: number,
    readonly headDim: number,
    readonly valueDim: number,
  ) {
    this.queries = newQueries(rows, headDim);
    this.scores = {
      data: new Float64Array(rows * MAX_BLOCK_TOKENS),
      offset: 0,
      stride: MAX_BLOCK_TOKENS,
    };
    this.states = new RowStates(rows, valueDim);
    this.runs = new Int32Array(rows * RUN_STRIDE);
    this.runCounts = new Int32Array(rows);
    this.keys = new Float32Array(panelElements(MAX_BLOCK_TOKENS, headDim));
    this.values = new Float32Array(panelElements(MAX_BLOCK_TOKENS, valueDim));
    this.row = new Float32Array(Math.max(headDim, valueDim));
  }

  get sinkQueries(): Rows {
    this.sinks ??= newQueries(this.rows, this.headDim);
    return this.sinks;
  }
}

function newQueries(rows: number, headDim: number): Rows {
  return { data: new Float64Array(rows * headDim), offset: 0, stride: headDim };
}

/** Elements of `runs` for one row. */
export const RUN_STRIDE = 2 * MAX_RUNS;

let spare: Workspace | null = null;

/** For tiles of groups of `group` heads. */
export function takeWorkspace(group: number, headDim: number, valueDim: number): Workspace {
  const rows = queriesPerTile(group) * group;
  const found = spare;
  spare = null;
  const fits =
    found !== null &&
    found.rows === rows &&
    found.headDim === headDim &&
    found.valueDim === valueDim;
  return fits ? found : new Workspace(rows, headDim, valueDim);
}

export function leaveWorkspace(workspace: Workspace): void {
  spare = workspace;
}
