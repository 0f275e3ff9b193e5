/**
 * What training computes, checked against float64, then timed beside this machine's multiply-add peak, which is measured
 * between the timings of the same run.
 *
 *   npm run bench:training [-- WORDS]     those whose names hold all the words; GQA_THREADS=1 for one thread
 *
 * FLOP are those of the pairs of row and key that see each other, two a multiply-add: 4 D forward, 10 D backward, where
 * q.k is made anew. What a linear layer's operands take to be transposed and packed is part of its time.
 */
import { getBackend } from '../../lib/backend';
import { now } from '../../lib/cli/bench/limits';
import { writeReport, type Column, type Row } from '../../lib/cli/bench/report';
import { spread } from '../../lib/toolkit/statistics';
import { attentionSubjects } from './attention';
import { linearSubjects } from './linear';
import type { Subject } from './subject';

/** Of any result; sums have up to 10,000 terms. */
const TOLERANCE = 1e-5;
const ROUNDS = 9;
/** A sample is a run of calls at least this long; each round measures the peak about as long. */
const SAMPLE_SECONDS = 0.01;
const PEAK_SECONDS = 0.002;

function seconds(run: () => void): number {
  const start = now();
  run();
  return now() - start;
}

/** Multiply-adds of the probe that take about PEAK_SECONDS. */
function peakIterations(): number {
  let iterations = 1000;
  while (seconds(() => getBackend().probeFma(iterations)) < PEAK_SECONDS) iterations *= 2;
  return iterations;
}

function measure({ name, flop, run, error }: Subject, iterations: number): Row {
  run();
  const off = error();
  if (!(off <= TOLERANCE)) throw new Error(`${name}: off by ${off}, allowed is ${TOLERANCE}`);
  const calls = Math.max(1, Math.ceil(SAMPLE_SECONDS / seconds(run)));
  const times: number[] = [];
  let peak = 0;
  for (let round = 0; round < ROUNDS; round++) {
    let probed = 0;
    const took = seconds(() => (probed = getBackend().probeFma(iterations)));
    peak = Math.max(peak, probed / took);
    times.push(seconds(() => Array.from({ length: calls }, run)) / calls);
  }
  const { median, p10, p90 } = spread(times);
  return {
    name,
    milliseconds: median * 1e3,
    p10: p10 * 1e3,
    p90: p90 * 1e3,
    gflops: flop / median / 1e9,
    peak: peak / 1e9,
    share: flop / median / peak,
    error: off,
  };
}

const COLUMNS: Column[] = [
  { key: 'name', title: 'what' },
  { key: 'milliseconds', title: 'ms', decimals: 2 },
  { key: 'p10', title: 'p10', decimals: 2 },
  { key: 'p90', title: 'p90', decimals: 2 },
  { key: 'gflops', title: 'GFLOP/s', decimals: 0 },
  { key: 'peak', title: 'peak', decimals: 0 },
  { key: 'share', title: 'share', style: 'percent' },
  { key: 'error', title: 'error', style: 'scientific' },
];

function main(words: string[]): void {
  const { kind, isa, threads } = getBackend().info;
  const iterations = peakIterations();
  if (getBackend().probeFma(iterations) === 0) throw new Error('no peak to compare with');
  const rows = [...attentionSubjects(), ...linearSubjects()]
    .filter(({ name }) => words.every((word) => name.includes(word)))
    .map((subject) => measure(subject, iterations));
  const machine = { backend: kind, isa, threads };
  const report = { bench: 'training', machine, notes: [], columns: COLUMNS, rows };
  process.stdout.write(writeReport(report, 'md'));
}

main(process.argv.slice(2));
