/** gqa and node-llama-cpp on the same file and the same prompts, in turn, run after run. */
import { join } from 'node:path';
import { setTimeout as wait } from 'node:timers/promises';
import { packageRoot } from '../../lib/backend/package-root';
import { randomData } from '../../lib/cli/bench/data';
import { spread, type Spread } from '../../lib/toolkit/statistics';
import type { RunTask, RunTimes } from './model-task';
import { cpuTimes, otherShare, participants } from './other-load';
import { Contender } from './protocol';

/** What is compared; all are times, so that less is better. */
export const MEASURES = {
  prompt: 'prompt of 512',
  generation: 'token after 32',
  longGeneration: 'token after 3,900',
  firstToken: 'first token of 3,900',
} as const;
export type Measure = keyof typeof MEASURES;

export interface Scenario {
  promptTokens: number;
  tokens: number;
  /** Which of its times is which measure. */
  first?: Measure;
  between?: Measure;
}

/** Prompt lengths are those of the measures' names; what is generated is enough for a steady figure. */
export const SCENARIOS: Scenario[] = [
  { promptTokens: 512, tokens: 1, first: 'prompt' },
  { promptTokens: 32, tokens: 64, between: 'generation' },
  { promptTokens: 3900, tokens: 33, first: 'firstToken', between: 'longGeneration' },
];
export const CONTEXT_LENGTH = 4096;

/** A sentence whose continuation no rounding changes. */
const CHECK_TEXT = 'The capital of France is Paris. The capital of Italy is';
const CHECK_TOKENS = 2;
/** Prompts take ids below this, which every vocabulary of interest has. */
const PROMPT_IDS = 32_000;
const REST_MILLISECONDS = 100;

export const FAST = 'gqa fast';
export const EXACT = 'gqa exact';
export const LLAMA = 'node-llama-cpp';

export type Times = Record<Measure, number[]>;

export interface ModelResult {
  contender: string;
  times: Partial<Record<Measure, Spread>>;
  /** Times of node-llama-cpp over this one's, of each run. */
  ratios: Partial<Record<Measure, Spread>>;
}

export interface ModelRace {
  results: ModelResult[];
  /** Share of the CPUs that processes which take no part used meanwhile; null where the system does not tell. */
  others: number | null;
}

export interface ModelRaceOptions {
  path: string;
  npm: string;
  threads: number;
  rounds: number;
  measures: Measure[];
}

/** Ids of no meaning below `bound`. */
export function randomIds(length: number, seed: number, bound: number): number[] {
  return Array.from(randomData('f32', length, seed), (x) =>
    Math.floor((Math.abs(x) * 1e6) % bound),
  );
}

async function start({ path, npm, threads }: ModelRaceOptions): Promise<Contender[]> {
  const worker = (name: string) => join(__dirname, 'workers', `${name}.js`);
  const environment = { GQA_THREADS: String(threads) };
  const command = [process.execPath, worker('gqa-model'), packageRoot()];
  const ours = (name: string) => new Contender(name, command, environment);
  const all = [
    ours(FAST),
    ours(EXACT),
    new Contender(LLAMA, [process.execPath, worker('llama-model'), npm]),
  ];
  const load = { path, threads, contextLength: CONTEXT_LENGTH };
  for (const contender of all) {
    const precision = contender.name === FAST ? 'fast' : 'exact';
    await contender.ask('load', { ...load, precision });
  }
  return all;
}

/** @throws where a contender does not go on with the sentence as the others do */
async function check(all: Contender[]): Promise<void> {
  const ids = await all[0].ask<number[]>('encode', CHECK_TEXT);
  const answers: string[] = [];
  for (const contender of all) {
    const { ids: next } = await contender.ask<RunTimes>('run', { ids, tokens: CHECK_TOKENS });
    answers.push(next.join(' '));
  }
  if (new Set(answers).size > 1) {
    const each = all.map(({ name }, i) => `${name}: ${answers[i]}`);
    throw new Error(`the contenders do not agree on the next tokens: ${each.join(', ')}`);
  }
}

async function runScenario(
  contender: Contender,
  { promptTokens, tokens, first, between }: Scenario,
  seed: number,
  times: Times,
): Promise<void> {
  await wait(REST_MILLISECONDS);
  const task: RunTask = { ids: randomIds(promptTokens, seed, PROMPT_IDS), tokens };
  const run = await contender.ask<RunTimes>('run', task);
  if (first !== undefined) times[first].push(run.firstTokenMilliseconds);
  // A text that ended at once has no such time; NaN keeps the runs of the contenders side by side.
  if (between !== undefined) times[between].push(run.tokenMilliseconds ?? NaN);
}

/** Quotients of runs made side by side, without those where one of the two has no time. */
export function ratiosOf(peer: number[], own: number[]): Spread | null {
  const ratios = peer.map((time, run) => time / own[run]).filter((ratio) => !Number.isNaN(ratio));
  return ratios.length > 0 ? spread(ratios) : null;
}

export function resultsOf(names: string[], times: Times[], measures: Measure[]): ModelResult[] {
  const llama = times[names.indexOf(LLAMA)];
  return names.map((contender, i) => {
    const result: ModelResult = { contender, times: {}, ratios: {} };
    for (const measure of measures) {
      const own = times[i][measure].filter((time) => !Number.isNaN(time));
      if (own.length > 0) result.times[measure] = spread(own);
      const ratios = ratiosOf(llama[measure], times[i][measure]);
      if (ratios !== null && contender !== LLAMA) result.ratios[measure] = ratios;
    }
    return result;
  });
}

export async function raceModels(
  options: ModelRaceOptions,
  note: (text: string) => void,
): Promise<ModelRace> {
  const { rounds, measures } = options;
  const wanted = SCENARIOS.filter(({ first, between }) =>
    measures.some((measure) => measure === first || measure === between),
  );
  const all = await start(options);
  try {
    await check(all);
    const times = all.map(() => ({
      ...{ prompt: [], generation: [], longGeneration: [], firstToken: [] },
    })) as Times[];
    const pids = participants(all);
    const before = cpuTimes(pids);
    for (let round = 0; round < rounds; round++) {
      for (const scenario of wanted) {
        for (const [i, contender] of all.entries()) {
          await runScenario(contender, scenario, round + 1, times[i]);
        }
        note(`round ${round + 1} of ${rounds}, prompt of ${scenario.promptTokens} done`);
      }
    }
    const others = otherShare(before, cpuTimes(pids));
    const names = all.map(({ name }) => name);
    return { results: resultsOf(names, times, measures), others };
  } finally {
    await Promise.all(all.map((contender) => contender.stop()));
  }
}
