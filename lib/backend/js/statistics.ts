/** What the weights of a row look like: StatisticsArgs, summed up block by block beside the softmax (scores.ts). */
import type { StatisticsArgs } from '../contract';
import { Statistic } from '../contract';
import type { RowView } from './scores';
import type { RowStates } from './states';
import type { Workspace } from './workspace';
import { RUN_STRIDE } from './workspace';

// See scores.ts.
const { exp, log, max: larger, min: smaller } = Math;

/** Adds sum w (s - max), w = exp(s - max), over the block's visible scores, and their number; before they become weights. */
export function observeSpread(workspace: Workspace, row: number, max: number): void {
  const { runs, runCounts, states } = workspace;
  const scores = workspace.scores.data;
  const base = row * workspace.scores.stride;
  let { [row]: spread } = states.spread;
  const firstRun = row * RUN_STRIDE;
  for (let run = firstRun; run < firstRun + 2 * runCounts[row]; run += 2) {
    states.visible[row] += runs[run + 1] - runs[run];
    const end = base + runs[run + 1];
    for (let i = base + runs[run]; i < end; i++) {
      const above = scores[i] - max;
      spread += exp(above) * above;
    }
  }
  states.spread[row] = spread;
}

/** Adds the weights of the block's keys below sinkTokens, and of those of the recent window; before dropout. */
export function observeMasses(
  { sinkTokens, recentTokens }: StatisticsArgs,
  workspace: Workspace,
  row: number,
  view: RowView,
  firstKey: number,
): void {
  const { runs, runCounts, states } = workspace;
  const weights = workspace.scores.data;
  const base = row * workspace.scores.stride;
  const oldest = view.position - recentTokens + 1;
  const firstRun = row * RUN_STRIDE;
  for (let run = firstRun; run < firstRun + 2 * runCounts[row]; run += 2) {
    for (let slot = runs[run]; slot < runs[run + 1]; slot++) {
      const position = keyPosition(view, firstKey + slot);
      if (position < sinkTokens) states.sink[row] += weights[base + slot];
      if (position >= oldest) states.recent[row] += weights[base + slot];
    }
  }
}

/** Tokens of a tree are at the positions of their depths. */
function keyPosition({ span, end }: RowView, key: number): number {
  if (span.tree < 0 || key < end) return key;
  return end + span.trees[span.tree + key - end];
}

/** Writes what the row's keys alone say; before a sink logit joins. */
export function writeKeyStatistics(
  { data, rows, firstRow }: StatisticsArgs,
  states: RowStates,
  row: number,
  index: number,
): void {
  const at = firstRow + index;
  const sum = states.sum[row];
  const visible = states.visible[row];
  const entropy = log(sum) - states.spread[row] / sum;
  const measured = sum !== 0 && visible > 1; // sum: NaN, where scores are, shall be seen
  data[Statistic.entropy * rows + at] = measured ? share(entropy / log(visible)) : 0;
  data[Statistic.maxLogit * rows + at] = states.max[row];
  data[Statistic.visible * rows + at] = visible;
}

/** Writes the shares of the whole, in which a sink logit of weight `sinkLogit` takes part. */
export function writeMasses(
  { data, rows, firstRow }: StatisticsArgs,
  states: RowStates,
  row: number,
  index: number,
  sinkLogit: number,
): void {
  const at = firstRow + index;
  const sum = states.sum[row];
  const sink = sum === 0 ? 0 : (states.sink[row] + sinkLogit) / sum;
  const recent = sum === 0 ? 0 : states.recent[row] / sum;
  data[Statistic.sinkMass * rows + at] = share(sink);
  data[Statistic.recentMass * rows + at] = share(recent);
}

/** Of [0, 1], rounding aside. */
function share(x: number): number {
  return larger(0, smaller(1, x));
}
