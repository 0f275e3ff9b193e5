import { SeededRandom } from '../../../lib/core/random';

describe('SeededRandom', () => {
  // From a C program around the authors' xoshiro128starstar.c.
  it.each<[number, number[]]>([
    [0, [1789933344, 796278596, 708868229, 2196394146, 1819445967]],
    [1, [393288148, 3361432542, 3447757068, 3504627930, 2108931518]],
    [42, [660444221, 4103611620, 1730111635, 1182469299, 3355235563]],
    [-1, [4104197751, 1464887138, 3299452356, 531546944, 3977808815]],
    [9007199254740991, [4104197751, 1439174178, 1770177326, 2944280802, 4054248558]],
  ])('gives the numbers of the reference for seed %d', (seed, expected) => {
    const random = new SeededRandom(seed);
    expect(Array.from({ length: 5 }, () => random.next())).toEqual(expected);
  });

  it('is uniform in [0, 1)', () => {
    const random = new SeededRandom(3);
    const bins = new Array<number>(20).fill(0);
    const draws = 40_000;
    for (let i = 0; i < draws; i++) {
      const x = random.uniform();
      expect(x >= 0 && x < 1).toBe(true);
      bins[Math.floor(x * bins.length)]++;
    }
    // 5 standard deviations of a bin: sqrt(n p (1 - p)) is 44.
    for (const count of bins) expect(Math.abs(count - draws / bins.length)).toBeLessThan(220);
  });
});
