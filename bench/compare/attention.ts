/** Decode and prefill of two builds. */
import { formatHeads } from '../../lib/cli/options';
import type { Row } from '../../lib/cli/bench/report';
import { race, type CaseResult, type PeerCase, type RaceOptions } from '../peers/attention-run';
import { gqaEntry } from '../peers/contenders';
import { judge } from './gate';
import { BASE, HEAD, type Builds, type GateOptions } from './sides';

/** New processes so many times. */
const SESSIONS = 3;

function nameOf({ op, shape, context, dtype }: PeerCase): string {
  return `${op} ${formatHeads(shape)} at ${context}, ${dtype}`;
}

function rowOf({ theCase, standings }: CaseResult, threshold: number): Row {
  const [base, head] = [BASE, HEAD].map((side) => standings.find(({ name }) => name === side)!);
  const about = {
    ...{ measure: nameOf(theCase), threads: theCase.threads },
    baseMicroseconds: base.microseconds?.median ?? null,
    headMicroseconds: head.microseconds?.median ?? null,
  };
  if (head.failure !== null) {
    // What neither can do is no loss.
    return {
      ...about,
      verdict: base.failure === null ? 'broken' : 'not there',
      failure: head.failure,
    };
  }
  if (base.failure !== null) return { ...about, verdict: 'new', failure: base.failure };
  const { ratio, interval, verdict } = judge(base.ratios, threshold);
  return { ...about, ratio, low: interval[0], high: interval[1], verdict, failure: null };
}

/** Both sides of a case in new processes: where memory happens to lie counts as much as a few percent of code. */
async function session(
  theCase: PeerCase,
  builds: Builds,
  options: RaceOptions,
): Promise<CaseResult> {
  const entries = [gqaEntry(HEAD, builds.head), gqaEntry(BASE, builds.base)];
  const racers = entries.map((entry) => ({ ...entry, contender: entry.start() }));
  try {
    return await race(theCase, racers, options);
  } finally {
    await Promise.all(racers.map(({ contender }) => contender.stop()));
  }
}

/** The sessions' quotients together; all else is of the first. */
async function measure(
  theCase: PeerCase,
  builds: Builds,
  { rounds, seconds }: GateOptions,
): Promise<CaseResult> {
  const options = {
    reference: HEAD,
    rounds: Math.ceil(rounds / SESSIONS),
    seconds: seconds / SESSIONS,
  };
  const results: CaseResult[] = [];
  for (let i = 0; i < SESSIONS; i++) results.push(await session(theCase, builds, options));
  const standings = results[0].standings.map((standing, side) => ({
    ...standing,
    ratios: results.flatMap((result) => result.standings[side].ratios),
  }));
  return { ...results[0], standings };
}

/** A case that seems slower is measured once more: one bad minute must not fail a commit. */
async function compareCase(theCase: PeerCase, builds: Builds, options: GateOptions): Promise<Row> {
  const once = async () => rowOf(await measure(theCase, builds, options), options.threshold);
  const first = await once();
  return first.verdict === 'slower' ? once() : first;
}

export async function compareAttention(
  cases: PeerCase[],
  builds: Builds,
  options: GateOptions,
  note: (text: string) => void,
): Promise<Row[]> {
  const rows: Row[] = [];
  for (const [index, theCase] of cases.entries()) {
    const row = await compareCase(theCase, builds, options);
    rows.push(row);
    const ratio = typeof row.ratio === 'number' ? ` ${row.ratio.toFixed(3)}` : '';
    note(
      `[${index + 1}/${cases.length}] ${row.measure}, ${row.threads} thr:${ratio} ${row.verdict}`,
    );
  }
  return rows;
}
