/** The runs of one HTTP request: submitted together, read together, ended together. */
import { setMaxListeners } from 'node:events';
import type { EnginePiece, EngineResult, EngineRun, GeneratedToken } from '../engine/types';
import type { ServerContext } from './context';
import { ClientGone } from './context';
import { refusal } from './errors';
import type { Job } from './requests';

/** What comes of a choice: pieces, then its result. */
export type ChoiceEvent =
  | { index: number; piece: EnginePiece; result?: undefined }
  | { index: number; piece?: undefined; result: EngineResult };

export interface WholeChoice {
  result: EngineResult;
  tokens: GeneratedToken[];
}

export interface Usage {
  prompt_tokens: number;
  completion_tokens: number;
  total_tokens: number;
  prompt_tokens_details: { cached_tokens: number };
}

/**
 * Submits all choices or none. `signal` ends them all.
 * @throws ApiError 429 and what else the engine refuses
 */
export function submit(context: ServerContext, job: Job, signal: AbortSignal): EngineRun[] {
  const group = new AbortController();
  // Every run listens.
  setMaxListeners(0, group.signal);
  const onAbort = () => group.abort(signal.reason);
  signal.addEventListener('abort', onAbort, { once: true });
  const runs: EngineRun[] = [];
  try {
    for (let choice = 0; choice < job.prompts.length * job.n; choice++) {
      runs.push(context.engine.submit({ ...job.request(choice), signal: group.signal }));
    }
  } catch (error) {
    signal.removeEventListener('abort', onAbort);
    group.abort(new ClientGone());
    for (const run of runs) run.result.catch(() => undefined);
    context.metrics.ended('rejected');
    throw refusal(error, context.retryAfter());
  }
  return runs;
}

async function* eventsOf(
  context: ServerContext,
  run: EngineRun,
  index: number,
): AsyncGenerator<ChoiceEvent, void> {
  for await (const piece of run) yield { index, piece };
  const result = await run.result;
  context.metrics.finished(result);
  yield { index, result };
}

type Arrival = { index: number; event: ChoiceEvent | undefined } | { failure: unknown };

/** Events of all runs as they come. A run is asked for its next piece only when the one before has been taken. */
export async function* events(
  context: ServerContext,
  runs: readonly EngineRun[],
): AsyncGenerator<ChoiceEvent, void> {
  const sources = runs.map((run, index) => eventsOf(context, run, index));
  const arrived: Arrival[] = [];
  let wake = (): void => undefined;
  const ask = (index: number) =>
    sources[index]
      .next()
      .then(({ value }) => arrived.push({ index, event: value ?? undefined }))
      .catch((failure: unknown) => arrived.push({ failure }))
      .finally(() => wake());
  sources.forEach((_, index) => void ask(index));
  for (let left = sources.length; left > 0;) {
    if (arrived.length === 0) await new Promise<void>((resolve) => (wake = resolve));
    const arrival = arrived.shift()!;
    if ('failure' in arrival) throw arrival.failure;
    if (arrival.event === undefined) {
      left--;
      continue;
    }
    yield arrival.event;
    void ask(arrival.index);
  }
}

async function readWhole(
  context: ServerContext,
  run: EngineRun,
  keepTokens: boolean,
): Promise<WholeChoice> {
  const tokens: GeneratedToken[] = [];
  for await (const piece of run) {
    if (keepTokens) tokens.push(...piece.tokens);
  }
  const result = await run.result;
  context.metrics.finished(result);
  return { result, tokens };
}

/** All choices, whole. Where one fails the caller ends the others. */
export function whole(
  context: ServerContext,
  runs: readonly EngineRun[],
  keepTokens: boolean,
): Promise<WholeChoice[]> {
  return Promise.all(runs.map((run) => readWhole(context, run, keepTokens)));
}

/** A prompt counts once, however many answers it got. */
export function usageOf(job: Job, results: readonly EngineResult[]): Usage {
  const firsts = results.filter((_, choice) => choice % job.n === 0);
  const sum = (of: readonly EngineResult[], read: (result: EngineResult) => number) =>
    of.reduce((total, result) => total + read(result), 0);
  const prompt = sum(firsts, ({ usage }) => usage.promptTokens);
  const completion = sum(results, ({ usage }) => usage.completionTokens);
  return {
    prompt_tokens: prompt,
    completion_tokens: completion,
    total_tokens: prompt + completion,
    prompt_tokens_details: { cached_tokens: sum(firsts, ({ usage }) => usage.cachedTokens) },
  };
}
