/** The tasks of the toolkit by name: synchronous functions whose options and results can be cloned. */
import { runConversion } from './convert/run';
import { runInspection } from './observe/inspect';
import type { TaskContext } from './task';
import { runUptrain } from './uptrain/run';

export const tasks = {
  convert: runConversion,
  inspect: runInspection,
  uptrain: runUptrain,
} satisfies Record<string, (options: never, context: TaskContext) => unknown>;

type Tasks = typeof tasks;
export type TaskKind = keyof Tasks;
export type TaskOptionsOf<K extends TaskKind> = Parameters<Tasks[K]>[0];
export type TaskResultOf<K extends TaskKind> = ReturnType<Tasks[K]>;
