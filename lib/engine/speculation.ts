/** Drafts of tokens to come, which a step checks all at once. */
import type { EngineTask } from './engine-task';
import type { StepCost } from './step-cost';

/** What a step has room for. */
export interface DraftRoom {
  /** Rows that it has without drafts. */
  rows: number;
  /** Rows that drafts may add. */
  most: number;
  cost: StepCost;
}

export interface Speculator {
  readonly totals: { drafted: number; accepted: number };
  /** Drafts for those of these tasks, which all decode, where it should pay. */
  propose(
    tasks: readonly EngineTask[],
    room: DraftRoom,
  ): ReadonlyMap<EngineTask, readonly number[]>;
  /** So many of a task's drafts were right. */
  learn(task: EngineTask, drafted: number, accepted: number): void;
  /** The task has left the cache. */
  forget(task: EngineTask): void;
}

export const NO_SPECULATION: Speculator = {
  totals: { drafted: 0, accepted: 0 },
  propose: () => new Map(),
  learn: () => undefined,
  forget: () => undefined,
};
