/** The table of a race: a row a contender; ours says how it stands against the best peer and the bar. */
import type { Column, Plot, Row } from '../../lib/cli/bench/report';
import { spread } from '../../lib/toolkit/statistics';
import { formatHeads } from '../../lib/cli/options';
import type { CaseResult, Standing } from './attention-run';
import type { Bar } from './bars';
import { OURS } from './contenders';
import { verdict } from './other-load';

export const COLUMNS: Column[] = [
  { key: 'op', title: 'op' },
  { key: 'heads', title: 'heads' },
  { key: 'context', title: 'context' },
  { key: 'dtype', title: 'dtype' },
  { key: 'threads', title: 'threads' },
  { key: 'contender', title: 'contender' },
  { key: 'medianMicroseconds', title: 'µs', decimals: 0 },
  { key: 'p10Microseconds', title: 'p10', decimals: 0 },
  { key: 'p90Microseconds', title: 'p90', decimals: 0 },
  { key: 'roofline', title: 'of roofline', style: 'percent' },
  { key: 'ratio', title: 'gqa faster by', decimals: 2 },
  { key: 'ratioP10', title: 'p10', decimals: 2 },
  { key: 'ratioP90', title: 'p90', decimals: 2 },
  { key: 'bar', title: 'bar', decimals: 1 },
  { key: 'met', title: 'met' },
  { key: 'others', title: 'others', style: 'percent' },
  { key: 'error', title: 'error', style: 'scientific' },
  { key: 'readLimitGigabytesPerSecond' },
  { key: 'fmaPeakGigaflops' },
  { key: 'failure', title: 'not timed' },
];

export const NOTES = [
  'Each contender runs in a process of its own and in turn with the others, round after round; before that its result is',
  'compared with float64. Gqa faster by: median over rounds of its time / that of gqa (exact); beside gqa, exact and fast, the',
  'best peer that counts over it, and the bar. Of roofline: as in gqa bench attention. q8, q4: own formats (onnxruntime a',
  'scale a channel, ggml Q8_0 and Q4_0), errors relative to the norm of the result. Others: share of the CPUs that went to',
  'processes which take no part; with more than 5 % there is no verdict, because peers that wait by spinning then stall.',
];

const PANEL = { panel: ['op', 'heads', 'context', 'threads'], label: ['dtype', 'contender'] };

export const PLOTS: Plot[] = [
  {
    title: 'Share of the roofline',
    value: 'roofline',
    colour: 'contender',
    reference: 1,
    ...PANEL,
  },
  {
    title: 'How many times faster gqa is',
    value: 'ratio',
    whisker: ['ratioP10', 'ratioP90'],
    colour: 'contender',
    reference: 1,
    ...PANEL,
  },
];

/** The peer entry with the least time. */
function bestPeer(standings: Standing[], against: string | null): Standing | undefined {
  return standings
    .filter(({ peer, ratios }) => peer !== OURS && ratios.length > 0 && peer === (against ?? peer))
    .sort((a, b) => spread(a.ratios).median - spread(b.ratios).median)[0];
}

export function caseRows(
  { theCase, limits, others, standings }: CaseResult,
  bar: Bar | null,
): Row[] {
  const { op, shape, context, dtype, threads } = theCase;
  const best = bestPeer(standings, bar?.against ?? null);
  return standings.map(({ name, peer, error, failure, microseconds, roofline, ratios }) => {
    const own = peer === OURS;
    const counted = own ? ratios.map((mine, i) => (best?.ratios[i] ?? NaN) / mine) : ratios;
    const shown = counted.length > 0 && best !== undefined ? spread(counted) : null;
    const held = own && bar !== null && shown !== null;
    return {
      ...{ op, heads: formatHeads(shape), context, dtype, threads, contender: name },
      medianMicroseconds: microseconds?.median ?? null,
      p10Microseconds: microseconds?.p10 ?? null,
      p90Microseconds: microseconds?.p90 ?? null,
      roofline,
      ratio: shown?.median ?? null,
      ratioP10: shown?.p10 ?? null,
      ratioP90: shown?.p90 ?? null,
      bar: held ? bar.ratio : null,
      met: held ? verdict(shown.median, bar.ratio, others) : null,
      others,
      error,
      readLimitGigabytesPerSecond: limits.read / 1e9,
      fmaPeakGigaflops: limits.fma / 1e9,
      failure,
    };
  });
}
