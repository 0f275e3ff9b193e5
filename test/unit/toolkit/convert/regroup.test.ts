import { SeededRandom } from '../../../../lib/core/random';
import { convertHeads } from '../../../../lib/toolkit/convert/methods';
import { reorder } from '../../../../lib/toolkit/convert/projections';
import { OutputRefit } from '../../../../lib/toolkit/convert/refit';
import { adjacentGroups, groupBySimilarity } from '../../../../lib/toolkit/convert/regroup';
import { headSimilarity, meanSimilarity } from '../../../../lib/toolkit/convert/similarity';
import { Random } from '../../../support/random';
import {
  disguise,
  outputOf,
  randomLayer,
  randomRows,
  relativeError,
  scaledRotation,
} from './layers';

const PARTNERS = [
  [0, 5],
  [1, 3],
  [2, 4],
];

test('heads that are turned copies of each other are found, and grouped', () => {
  const layer = randomLayer({ heads: 12, kvHeads: 6 }, 1);
  disguise(layer, PARTNERS, { scaledKeys: false, map: scaledRotation });
  const similarity = headSimilarity(layer);
  for (const [a, b] of PARTNERS) {
    expect(similarity.key[a][b]).toBeCloseTo(1, 5);
    expect(similarity.value[a][b]).toBeCloseTo(1, 5);
  }
  expect(similarity.key[0][1]).toBeLessThan(0.9);
  const groups = groupBySimilarity(meanSimilarity(similarity), 3);
  expect(groups).toEqual(PARTNERS);

  const regrouped = reorder(layer, groups.flat());
  const inputs = { random: new SeededRandom(1), moment: null };
  const error = (kv: ReturnType<typeof reorder>) => relativeError(outputOf(kv), outputOf(layer));
  expect(error(convertHeads(regrouped, 3, 'aligned', inputs))).toBeLessThan(2e-5);
  expect(error(convertHeads(layer, 3, 'aligned', inputs))).toBeGreaterThan(0.1);
});

test('another order of KV heads is the same function', () => {
  const layer = randomLayer({ heads: 12, kvHeads: 6 }, 2);
  const moved = reorder(layer, [4, 0, 5, 2, 1, 3]);
  expect(moved.query.data).not.toEqual(layer.query.data);
  expect(relativeError(outputOf(moved), outputOf(layer))).toBeLessThan(1e-12);
});

test('exchanges find what taking the best pair first misses', () => {
  // 0 and 1 are nearest, but then 2 and 3, which are nothing to each other, are left.
  const s = [
    [1, 0.9, 0.8, 0.1],
    [0.9, 1, 0.1, 0.8],
    [0.8, 0.1, 1, -0.9],
    [0.1, 0.8, -0.9, 1],
  ];
  expect(groupBySimilarity(s, 2)).toEqual([
    [0, 2],
    [1, 3],
  ]);
  expect(groupBySimilarity(s, 1)).toEqual([[0, 1, 2, 3]]);
  expect(groupBySimilarity(s, 4)).toEqual([[0], [1], [2], [3]]);
  expect(adjacentGroups(6, 2)).toEqual([
    [0, 1, 2],
    [3, 4, 5],
  ]);
});

test('the output projection is found again from what it gave', () => {
  const random = new Random(3);
  const wanted = randomRows(5, 8, random);
  const refit = new OutputRefit(8, 5);
  for (let window = 0; window < 4; window++) {
    const context = randomRows(50, 8, random);
    const output = Float32Array.from({ length: 50 * 5 }, (_, at) => {
      const [token, row] = [Math.floor(at / 5), at % 5];
      let sum = 0;
      for (let i = 0; i < 8; i++) sum += wanted.data[row * 8 + i] * context.data[token * 8 + i];
      return sum;
    });
    refit.add(context.data, output);
  }
  const found = refit.solve(randomRows(5, 8, random));
  // What is left is the share of the first guess that the ridge keeps.
  expect(relativeError([...found.data], [...wanted.data])).toBeLessThan(5e-3);
  expect(new OutputRefit(8, 5).solve(wanted)).toBe(wanted);
});
