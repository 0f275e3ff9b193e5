/** The regression gate's statistics, and how it names commits. */
import { resolveCommit } from '../../../bench/compare/build';
import { judge } from '../../../bench/compare/gate';
import { medianInterval } from '../../../lib/toolkit/statistics';

const around = (centre: number, spread: number, count = 15) =>
  Array.from({ length: count }, (_, i) => centre + (spread * (i - (count - 1) / 2)) / count);

test.each([
  // Order statistics 1..n that hold the median with 95 %, as tables of the sign test give them.
  [5, 1, 5],
  [6, 1, 6],
  [9, 2, 8],
  [15, 4, 12],
  [20, 6, 15],
])('interval of the median of %i values', (count, low, high) => {
  const values = Array.from({ length: count }, (_, i) => count - i);
  expect(medianInterval(values)).toEqual([low, high]);
});

test('the interval covers the median as often as it says', () => {
  let state = 7;
  const uniform = () => (state = (state * 48271) % 2147483647) / 2147483647;
  let held = 0;
  const trials = 2000;
  for (let trial = 0; trial < trials; trial++) {
    const [low, high] = medianInterval(Array.from({ length: 11 }, uniform));
    if (low <= 0.5 && 0.5 <= high) held++;
  }
  expect(held / trials).toBeGreaterThan(0.94);
  expect(held / trials).toBeLessThan(1);
});

test('beyond the threshold and clear of 1: slower or faster', () => {
  expect(judge(around(0.9, 0.05), 0.05)).toMatchObject({ verdict: 'slower' });
  expect(judge(around(1.1, 0.05), 0.05)).toMatchObject({ verdict: 'faster' });
});

test('within the threshold, or unsure: the same', () => {
  expect(judge(around(0.97, 0.02), 0.05).verdict).toBe('same');
  expect(judge(around(1.03, 0.02), 0.05).verdict).toBe('same');
  const unsure = judge(around(0.9, 1), 0.05);
  expect(unsure.ratio).toBeCloseTo(0.9, 12);
  expect(unsure.interval[1]).toBeGreaterThan(1);
  expect(unsure.verdict).toBe('same');
});

test('the threshold is a share of the time', () => {
  // 6 % more time.
  expect(judge(around(1 / 1.06, 0.001), 0.05).verdict).toBe('slower');
  expect(judge(around(1 / 1.06, 0.001), 0.07).verdict).toBe('same');
});

test('what git does not know is refused by name', () => {
  expect(() => resolveCommit('no-such-branch')).toThrow("'no-such-branch'");
  expect(() => resolveCommit('--version')).toThrow("'--version'");
});
