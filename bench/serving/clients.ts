/** Clients of an engine that keep it busy, and what they saw of it. */
import { monitorEventLoopDelay } from 'node:perf_hooks';
import type { Engine, EngineRun } from '../../lib';

export interface Served {
  /** Generated tokens of all clients together, per second. */
  tokensPerSecond: number;
  /** Milliseconds. */
  loopDelayP99: number;
  /** Each client's tokens. */
  ids: number[][];
}

/** Reads a run to its end; `onToken` hears of each piece. */
export async function read(run: EngineRun, onPiece?: () => void): Promise<number[]> {
  const ids: number[] = [];
  for await (const { tokens } of run) {
    onPiece?.();
    for (const { id } of tokens) ids.push(id);
  }
  return ids;
}

/** So many clients at once, each with a prompt of its own and one answer of `tokens` tokens. */
export async function serve(
  engine: Engine,
  prompts: readonly (readonly number[])[],
  tokens: number,
): Promise<Served> {
  const delay = monitorEventLoopDelay({ resolution: 1 });
  delay.enable();
  const startedAt = performance.now();
  const ids = await Promise.all(
    prompts.map((prompt) => read(engine.submit({ prompt, maxTokens: tokens, ignoreEos: true }))),
  );
  const seconds = (performance.now() - startedAt) / 1000;
  delay.disable();
  return {
    tokensPerSecond: (prompts.length * tokens) / seconds,
    // The monitor counts its own interval as delay.
    loopDelayP99: Math.max(0, delay.percentile(99) / 1e6 - 1),
    ids,
  };
}

/** Milliseconds from submit to the first token; the rest is not wanted. */
export async function firstTokenMs(engine: Engine, prompt: readonly number[]): Promise<number> {
  const startedAt = performance.now();
  const run = engine.submit({ prompt, maxTokens: 2, ignoreEos: true });
  let ms = 0;
  await read(run, () => (ms ||= performance.now() - startedAt));
  return ms;
}

export function median(values: readonly number[]): number {
  const sorted = [...values].sort((a, b) => a - b);
  return sorted[Math.floor(sorted.length / 2)];
}
