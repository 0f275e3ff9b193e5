/** The verdict on one measure of two commits, from the quotients of runs made side by side. */
import { medianInterval, spread } from '../../lib/toolkit/statistics';

export type Verdict = 'slower' | 'faster' | 'same';

export interface Judgement {
  /** Base time over head time: above 1 where head is faster. */
  ratio: number;
  /** Where its median lies with 95 % confidence. */
  interval: [number, number];
  verdict: Verdict;
}

/**
 * Slower, or faster: by more than the threshold in the median, and with an interval that leaves out 1.
 *
 * @param ratios base time / head time of each round
 * @param threshold share of the time, such as 0.05
 */
export function judge(ratios: number[], threshold: number): Judgement {
  const ratio = spread(ratios).median;
  const interval = medianInterval(ratios);
  let verdict: Verdict = 'same';
  if (1 / ratio > 1 + threshold && interval[1] < 1) verdict = 'slower';
  if (ratio > 1 + threshold && interval[0] > 1) verdict = 'faster';
  return { ratio, interval, verdict };
}
