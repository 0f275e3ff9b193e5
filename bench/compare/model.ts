/** A model's prompt and generation with two builds. */
import { join } from 'node:path';
import type { Row } from '../../lib/cli/bench/report';
import { randomIds } from '../peers/model-run';
import type { RunTask, RunTimes } from '../peers/model-task';
import { Contender } from '../peers/protocol';
import { judge } from './gate';
import { BASE, HEAD, type Builds, type GateOptions } from './sides';

const PROMPT_TOKENS = 160;
const TOKENS = 64;
/** A run is short: several make a time. */
const RUNS = 4;

/** Milliseconds of a prompt, and of a token after it. */
type Times = [prompt: number, token: number];

async function timeOnce(contender: Contender, vocabulary: number, seed: number): Promise<Times> {
  let best: Times = [Infinity, Infinity];
  for (let run = 0; run < RUNS; run++) {
    const ids = randomIds(PROMPT_TOKENS, seed * RUNS + run, vocabulary);
    const task: RunTask = { ids, tokens: TOKENS };
    const { firstTokenMilliseconds, tokenMilliseconds } = await contender.ask<RunTimes>(
      'run',
      task,
    );
    best = [
      Math.min(best[0], firstTokenMilliseconds),
      Math.min(best[1], tokenMilliseconds ?? Infinity),
    ];
  }
  return best;
}

/** @param path of the model, which both builds must read */
export async function compareModel(
  path: string,
  threads: number,
  builds: Builds,
  { rounds, threshold }: GateOptions,
): Promise<Row[]> {
  const script = join(__dirname, '..', 'peers', 'workers', 'gqa-model.js');
  const environment = { GQA_THREADS: String(threads) };
  const [base, head] = [
    new Contender(BASE, [process.execPath, script, builds.base], environment),
    new Contender(HEAD, [process.execPath, script, builds.head], environment),
  ];
  try {
    const task = { path, precision: 'exact', threads, contextLength: PROMPT_TOKENS + TOKENS };
    const vocabulary = await head.ask<number>('load', task);
    await base.ask('load', task);
    const times: { base: Times[]; head: Times[] } = { base: [], head: [] };
    for (const contender of [base, head]) await timeOnce(contender, vocabulary, 1);
    for (let round = 0; round < rounds; round++) {
      for (const side of round % 2 === 0 ? [base, head] : [head, base]) {
        const found = await timeOnce(side, vocabulary, round + 2);
        times[side === base ? 'base' : 'head'].push(found);
      }
    }
    return ['model, prompt', 'model, token'].map((measure, which) => {
      const ratios = times.base
        .map((time, round) => time[which] / times.head[round][which])
        .filter((quotient) => Number.isFinite(quotient) && quotient > 0);
      const { ratio, interval, verdict } = judge(ratios, threshold);
      return {
        measure,
        threads,
        ratio,
        low: interval[0],
        high: interval[1],
        verdict,
        failure: null,
      };
    });
  } finally {
    await Promise.all([base.stop(), head.stop()]);
  }
}
