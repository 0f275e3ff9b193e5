/** What a worker of bench:peers model answers to, and how a run is timed, the same for every contender. */

export interface LoadTask {
  path: string;
  precision?: 'exact' | 'fast';
  threads: number;
  /** Tokens of prompt and answer together. */
  contextLength: number;
}

export interface RunTask {
  ids: number[];
  /** Generated at most, greedily. */
  tokens: number;
}

export interface RunTimes {
  /** From the call to the first token, in milliseconds. */
  firstTokenMilliseconds: number;
  /** Between two tokens after the first, in milliseconds; null where there was but one. */
  tokenMilliseconds: number | null;
  ids: number[];
}

export interface ModelHandlers {
  load(task: LoadTask): Promise<void>;
  run(task: RunTask): Promise<RunTimes>;
  encode?(text: string): number[];
}

/** Takes up to `count` tokens from a generation that has not begun. */
export async function timeTokens(
  generation: AsyncIterable<number>,
  count: number,
): Promise<RunTimes> {
  const start = performance.now();
  const ids: number[] = [];
  let first = start;
  let last = start;
  for await (const id of generation) {
    last = performance.now();
    if (ids.length === 0) first = last;
    ids.push(id);
    if (ids.length === count) break;
  }
  if (ids.length === 0) throw new Error('the model ended its text at once');
  return {
    firstTokenMilliseconds: first - start,
    tokenMilliseconds: ids.length > 1 ? (last - first) / (ids.length - 1) : null,
    ids,
  };
}
