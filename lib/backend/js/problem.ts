/** What the two operations of attention have in common: AttendArgs and AttendStepArgs, as tiles see them. */
import type { AttendArgs } from '../contract';

/** The options of a call; a step has none of the features that only AttendArgs has. */
export type Problem = Omit<AttendArgs, 'batch' | 'queryTokens' | 'keyTokens' | 'kv' | 'precision'>;

/** The queries of one sequence, a batch or an entry of a step, and how many keys it has. */
export interface Span {
  /** The batch, as masks, biases and dropout count it. */
  batch: number;
  /** Row of q and out, counted in tokens, of the first query. */
  firstToken: number;
  queryTokens: number;
  keyTokens: number;
  /** As StepPlan.trees and its index for the entry, -1 where the queries are a chain. */
  trees: Int32Array;
  tree: number;
}
