/** Times the contenders of one case in turn, round after round, after each has passed the float64 check. */
import type { CacheDType } from '../../lib/core/dtype';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as wait } from 'node:timers/promises';
import { randomData } from '../../lib/cli/bench/data';
import { best, coldCopies } from '../../lib/cli/bench/limits';
import { attendRow, storedError, toleranceOf, type Elements } from '../../lib/cli/bench/oracle';
import {
  decodeWork,
  inputDType,
  prefillWork,
  rate,
  type MachineLimits,
  type Work,
} from '../../lib/cli/bench/roofline';
import { spread, type Spread } from '../../lib/toolkit/statistics';
import type { HeadShape } from '../../lib/cli/options';
import {
  queryTokens,
  readElements,
  writeElements,
  type AttentionTask,
  type PeerOp,
} from './attention-task';
import type { ContenderEntry } from './contenders';
import { cpuTimes, otherShare, participants } from './other-load';
import type { Contender } from './protocol';

export interface PeerCase {
  op: PeerOp;
  shape: HeadShape;
  context: number;
  dtype: CacheDType;
  threads: number;
}

export interface Standing {
  name: string;
  peer: string;
  /** Against float64; null where the contender failed before. */
  error: number | null;
  /** Why it was not timed. */
  failure: string | null;
  microseconds: Spread | null;
  /** Share of the roofline. */
  roofline: number | null;
  /** Its time over the reference's, of each round. */
  ratios: number[];
}

export interface CaseResult {
  theCase: PeerCase;
  limits: MachineLimits;
  /** Share of the CPUs that processes which take no part used meanwhile; null where the system does not tell. */
  others: number | null;
  standings: Standing[];
}

/** A peer may be coarser than we allow ourselves (ggml sums f16 in f16), and is still worth comparing with. */
const PEER_TOLERANCE = 4;
const WARM_SECONDS = 0.1;
/** Other processes' threads may spin for a while after their last call. */
const REST_MILLISECONDS = 30;

export function workOf({ op, shape, context, dtype }: PeerCase): Work {
  return (op === 'decode' ? decodeWork : prefillWork)(shape, context, dtype);
}

function makeTask(theCase: PeerCase, folder: string): AttentionTask {
  const { op, shape, context, dtype, threads } = theCase;
  const inputs = inputDType(dtype);
  const copies = op === 'decode' ? coldCopies(workOf(theCase).bytes) : 1;
  const path = (name: string) => join(folder, name);
  const task: AttentionTask = {
    ...{ op, ...shape, context, dtype, inputs, threads, copies },
    ...{ q: path('q'), k: path('k'), v: path('v'), output: path('out') },
  };
  const { heads, kvHeads, headDim } = shape;
  const keyElements = context * kvHeads * headDim;
  writeElements(task.q, randomData(inputs, queryTokens(task) * heads * headDim, 3, 1));
  writeElements(task.k, randomData(inputs, keyElements, 1));
  writeElements(task.v, randomData(inputs, keyElements, 2));
  return task;
}

interface Row {
  token: number;
  head: number;
  expected: Float64Array;
}

/** Float64 results of the first, a middle and the last query token, each with the first and the last head. */
function expectedRows(task: AttentionTask): Row[] {
  const { heads, kvHeads, headDim, context, inputs } = task;
  const elements = (path: string): Elements => ({
    data: readElements(path, inputs),
    dtype: inputs,
  });
  const q = elements(task.q);
  const kv = { k: elements(task.k), v: elements(task.v), kvHeads, headDim };
  const queries = queryTokens(task);
  const tokens = [...new Set([0, queries >> 1, queries - 1])];
  return tokens.flatMap((token) =>
    [...new Set([0, heads - 1])].map((head) => {
      const keys = context - queries + token + 1;
      const kvHead = Math.floor(head / (heads / kvHeads));
      const expected = attendRow(q, (token * heads + head) * headDim, kv, kvHead, keys);
      return { token, head, expected };
    }),
  );
}

function errorOf(task: AttentionTask, rows: Row[]): number {
  const { heads, headDim, dtype } = task;
  const result = readElements(task.output, 'f32');
  const errors = rows.map(({ token, head, expected }) => {
    const at = (token * heads + head) * headDim;
    return storedError(dtype, expected, result.subarray(at, at + headDim));
  });
  return Math.max(...errors);
}

export interface Racer extends ContenderEntry {
  contender: Contender;
}

interface Lap {
  racer: Racer;
  error: number | null;
  failure: string | null;
  /** Microseconds of the calls of each round. */
  rounds: number[][];
}

/** Prepares and checks a contender; one that fails is left out of the race, with the reason. */
async function enter(racer: Racer, task: AttentionTask, rows: Row[]): Promise<Lap> {
  const lap: Lap = { racer, error: null, failure: null, rounds: [] };
  try {
    rmSync(task.output, { force: true });
    await racer.contender.ask('prepare', task);
    lap.error = errorOf(task, rows);
    const allowed =
      racer.precision === undefined
        ? PEER_TOLERANCE * toleranceOf(task.dtype, 'exact')
        : toleranceOf(task.dtype, racer.precision);
    if (!(lap.error <= allowed)) lap.failure = `off by ${lap.error}, allowed is ${allowed}`;
  } catch (error) {
    lap.failure = error instanceof Error ? error.message : String(error);
  }
  return lap;
}

function standing(
  { racer, error, failure, rounds }: Lap,
  reference: Lap,
  { theCase, limits }: Pick<CaseResult, 'theCase' | 'limits'>,
): Standing {
  const { name, peer } = racer;
  const about = { name, peer, error, failure };
  if (rounds.length === 0) return { ...about, microseconds: null, roofline: null, ratios: [] };
  const median = (round: number[]) => spread(round).median;
  const microseconds = spread(rounds.flat());
  const { roofline } = rate(workOf(theCase), limits, microseconds.median / 1e6);
  const ratios = reference.rounds.map((round, i) => median(rounds[i]) / median(round));
  return { ...about, microseconds, roofline, ratios };
}

export interface RaceOptions {
  /** Name of the racer whose time the others' are divided by; it also measures the machine. */
  reference: string;
  rounds: number;
  /** Of timing for each contender, all rounds together. */
  seconds: number;
}

/** Every second round goes backwards: whoever comes after another has no lasting advantage. */
async function runRounds(
  running: Lap[],
  { rounds, seconds }: RaceOptions,
  measure: () => Promise<MachineLimits>,
): Promise<MachineLimits> {
  let limits = await measure();
  for (const { racer } of running) await racer.contender.ask('time', WARM_SECONDS);
  for (let round = 0; round < rounds; round++) {
    for (const lap of round % 2 === 0 ? running : [...running].reverse()) {
      await wait(REST_MILLISECONDS);
      lap.rounds.push(await lap.racer.contender.ask<number[]>('time', seconds / rounds));
    }
    await wait(REST_MILLISECONDS);
    limits = best(limits, await measure());
  }
  return limits;
}

export async function race(
  theCase: PeerCase,
  racers: Racer[],
  options: RaceOptions,
): Promise<CaseResult> {
  const folder = mkdtempSync(join(tmpdir(), 'gqa-race-'));
  try {
    const task = makeTask(theCase, folder);
    const rows = expectedRows(task);
    const laps: Lap[] = [];
    for (const racer of racers) {
      if (racer.dtypes[theCase.op].includes(theCase.dtype)) {
        laps.push(await enter(racer, task, rows));
      }
    }
    const reference = laps.find((lap) => lap.racer.name === options.reference)!;
    const running = laps.filter((lap) => lap.failure === null);
    const pids = participants(running.map(({ racer }) => racer.contender));
    const before = cpuTimes(pids);
    const limits = await runRounds(running, options, () =>
      reference.racer.contender.ask<MachineLimits>('limits', theCase.threads),
    );
    const others = otherShare(before, cpuTimes(pids));
    const about = { theCase, limits, others };
    return { ...about, standings: laps.map((lap) => standing(lap, reference, about)) };
  } finally {
    rmSync(folder, { recursive: true });
  }
}
