/**
 * The memory one attend call works in, for one tile of query rows and one block of keys. A row is (query, head of the
 * group), query major. A finished call leaves its workspace for the next one of the same shape, so that decoding
 * allocates nothing; an async call keeps its own over all its turns.
 */
import { BLOCK_VALUES } from '../../core/dtype';
import { RowStates } from './states';
import type { Rows } from './panel';
import { roundUpToLanes } from './panel';

/** No block has more token slots, in an arena or over a tensor. */
export const MAX_BLOCK_TOKENS = 64;
/** At most every other key of a block begins a run. */
const MAX_RUNS = MAX_BLOCK_TOKENS / 2;

export class Workspace {
  /** [rows, headDim], times the scale. */
  readonly queries: Rows;
  /** [rows, block tokens]: scores, then weights. */
  readonly scores: Rows;
  readonly states: RowStates;
  /** Visible keys of each row as runs [from, to) of block slots: [rows][MAX_RUNS][2]. */
  readonly runs: Int32Array;
  readonly runCounts: Int32Array;
  /** K of a block as panels, V as rows. */
  readonly keys: Float32Array;
  readonly values: Float32Array;
  /** A row of Q, K or V on its way, widened, with room for whole blocks of 32. */
  readonly row: Float32Array;

  constructor(
    readonly rows: number,
    readonly headDim: number,
    readonly valueDim: number,
  ) {
    this.queries = { data: new Float64Array(rows * headDim), offset: 0, stride: headDim };
    this.scores = {
      data: new Float64Array(rows * MAX_BLOCK_TOKENS),
      offset: 0,
      stride: MAX_BLOCK_TOKENS,
    };
    this.states = new RowStates(rows, valueDim);
    this.runs = new Int32Array(rows * RUN_STRIDE);
    this.runCounts = new Int32Array(rows);
    this.keys = new Float32Array(MAX_BLOCK_TOKENS * headDim);
    this.values = new Float32Array(MAX_BLOCK_TOKENS * roundUpToLanes(valueDim));
    const dims = Math.max(headDim, valueDim);
    this.row = new Float32Array(Math.ceil(dims / BLOCK_VALUES) * BLOCK_VALUES);
  }
}

/** Elements of `runs` for one row. */
export const RUN_STRIDE = 2 * MAX_RUNS;

let spare: Workspace | null = null;

export function takeWorkspace(rows: number, headDim: number, valueDim: number): Workspace {
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
