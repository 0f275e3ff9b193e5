/** Two ways to do a thing, timed in turns, so that what disturbs the machine disturbs both. */
import { medianInterval, spread } from '../../lib/toolkit/statistics';

export const ROUNDS = 41;
const WARM_ROUNDS = 4;

/** Medians; `overhead` is that of second / first - 1 of a round, `interval` where 95 % of such medians would lie. */
export interface Comparison {
  first: number;
  second: number;
  overhead: number;
  interval: readonly [number, number];
}

/** `first` and `second` do the thing once and return the time it took; which goes before the other alternates. */
export function compareInTurns(first: () => number, second: () => number): Comparison {
  const [firsts, seconds, ratios]: number[][] = [[], [], []];
  for (let round = -WARM_ROUNDS; round < ROUNDS; round++) {
    const inOrder = round % 2 === 0;
    const earlier = inOrder ? first() : second();
    const later = inOrder ? second() : first();
    if (round < 0) continue;
    const [a, b] = inOrder ? [earlier, later] : [later, earlier];
    firsts.push(a);
    seconds.push(b);
    ratios.push(b / a - 1);
  }
  const median = (values: number[]): number => spread(values).median;
  return {
    first: median(firsts),
    second: median(seconds),
    overhead: median(ratios),
    interval: medianInterval(ratios),
  };
}
