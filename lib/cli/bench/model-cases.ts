/** Tokens a second of a whole model, prompt and generation, through the public API: worker, sampler and all. */
import type { CacheDType } from '../../core/dtype';
import type { GenerationStats, Model } from '../../model';
import { randomData } from './data';
import { best, now, type LimitProbe } from './limits';
import { VALUE_BITS } from './roofline';
import { spread, type Spread } from '../../toolkit/statistics';

export interface ModelRun {
  model: Model;
  /** Storage of its KV cache. */
  dtype: CacheDType;
  /** Prompt tokens; generation goes on from there. */
  context: number;
  /** Tokens generated in each run. */
  tokens: number;
  seconds: number;
}

export interface ModelMeasurement {
  promptTokensPerSecond: Spread;
  /** Null where the model ended its text at once, every time. */
  generationTokensPerSecond: Spread | null;
  /** Bytes a second; the best seen around this case. */
  readLimit: number;
  /** Time to read weights and cache once, as a share of the median time of a token. */
  generationOfReadLimit: number | null;
}

/** Runs timed at least; one more before them warms up. */
const MIN_RUNS = 3;
/** Fewer steps than this say nothing about the speed of one. */
const MIN_STEPS = 4;

/** Ids of no meaning, other ones for each run: a model then seldom ends its text at once. */
function randomPrompt(model: Model, length: number, seed: number): number[] {
  const { vocabSize } = model.config;
  const noise = randomData('f32', length, seed);
  return Array.from(noise, (x) => Math.floor((Math.abs(x) * 1e6) % vocabSize));
}

async function runOnce(
  { model, context, tokens }: ModelRun,
  seed: number,
  signal: AbortSignal,
): Promise<GenerationStats> {
  const generation = model.generate(randomPrompt(model, context, seed), {
    maxTokens: tokens,
    temperature: 0,
    signal,
  });
  // eslint-disable-next-line @typescript-eslint/no-unused-vars
  for await (const _ of generation);
  return generation.stats;
}

/** What a token of generation must read: all weights, and the cache of the tokens before it. */
export function bytesPerToken({ model, dtype, context, tokens }: ModelRun): number {
  const { layerKvHeads, headDim } = model.config;
  const kvHeads = layerKvHeads.reduce((sum, count) => sum + count);
  const cached = context + tokens / 2;
  return model.bytes + 2 * kvHeads * headDim * (VALUE_BITS[dtype] / 8) * cached;
}

/** @throws the signal's reason when it is aborted */
export async function measureModel(
  run: ModelRun,
  probe: LimitProbe,
  signal: AbortSignal,
): Promise<ModelMeasurement> {
  await runOnce(run, 1, signal);
  const prompt: number[] = [];
  const generation: number[] = [];
  let limits = probe.measure();
  const end = now() + run.seconds;
  for (let seed = 2; prompt.length < MIN_RUNS || now() < end; seed++) {
    const stats = await runOnce(run, seed, signal);
    prompt.push(stats.promptTokensPerSecond);
    if (stats.tokens > MIN_STEPS) generation.push(stats.tokensPerSecond);
    limits = best(limits, probe.measure());
  }
  const generated = generation.length > 0 ? spread(generation) : null;
  return {
    promptTokensPerSecond: spread(prompt),
    generationTokensPerSecond: generated,
    readLimit: limits.read,
    generationOfReadLimit:
      generated === null ? null : (generated.median * bytesPerToken(run)) / limits.read,
  };
}
