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
  /** Ours gives the size of the vocabulary. */
  load(task: LoadTask): Promise<unknown>;
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
  let first: number | null = null;
  let last = start;
  for await (const id of generation) {
    last = performance.now();
    first ??= last;
    ids.push(id);
    if (ids.length === count) break;
  }
  // A text that ends at once has taken the time of its first token too: that of the end.
  first ??= performance.now();
  return {
    firstTokenMilliseconds: first - start,
    tokenMilliseconds: ids.length > 1 ? (last - first) / (ids.length - 1) : null,
    ids,
  };
}
