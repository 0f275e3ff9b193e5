import { SeededRandom } from '../../../../lib/core/random';
import type { Complex } from '../../../../lib/toolkit/convert/complex';
import { alignedFit, fittedFit, type KeyFit } from '../../../../lib/toolkit/convert/key-fits';
import { timesTransposed } from '../../../../lib/toolkit/convert/matrices';
import { convertHeads, METHODS, type Method } from '../../../../lib/toolkit/convert/methods';
import type { Projections } from '../../../../lib/toolkit/convert/projections';
import { Random } from '../../../support/random';
import {
  COLUMNS,
  DIM,
  disguise,
  invertible,
  outputOf,
  randomLayer,
  randomRows,
  relativeError,
  scaledRotation,
} from './layers';

const convert = (layer: Projections, kvHeads: number, method: Method, seed = 1) =>
  convertHeads(layer, kvHeads, method, { random: new SeededRandom(seed), moment: null });

const errorOf = (layer: Projections, converted: Projections) =>
  relativeError(outputOf(converted), outputOf(layer));

// f32 weights and products of f32: rounding grows with the scale of the scores, which are of the order of ten.
const EXACT = 2e-5;

describe.each([
  { heads: 4, kvHeads: 4 },
  { heads: 8, kvHeads: 4 },
])('heads that are one head in disguise, $heads/$kvHeads', (heads) => {
  const pairs = [
    [0, 1],
    [2, 3],
  ];

  test('fitted undoes any map of values and any factor of a RoPE pair', () => {
    const layer = randomLayer(heads, 3);
    disguise(layer, pairs, { scaledKeys: true, map: invertible });
    expect(errorOf(layer, convert(layer, 2, 'fitted'))).toBeLessThan(EXACT);
    expect(errorOf(layer, convert(layer, 2, 'mean'))).toBeGreaterThan(0.1);
  });

  test('fitted does so in the metric of a text', () => {
    const layer = randomLayer(heads, 3);
    disguise(layer, pairs, { scaledKeys: true, map: invertible });
    const text = randomRows(COLUMNS, 200, new Random(5));
    const moment = timesTransposed(text, text);
    const converted = convertHeads(layer, 2, 'fitted', { random: new SeededRandom(1), moment });
    expect(errorOf(layer, converted)).toBeLessThan(EXACT);
  });

  test('aligned undoes turns and sizes', () => {
    const layer = randomLayer(heads, 4);
    disguise(layer, pairs, { scaledKeys: true, map: scaledRotation });
    expect(errorOf(layer, convert(layer, 2, 'aligned'))).toBeLessThan(EXACT);
  });

  test('all heads may be one', () => {
    const layer = randomLayer(heads, 5);
    disguise(layer, [[0, 1, 2, 3]], { scaledKeys: false, map: scaledRotation });
    expect(errorOf(layer, convert(layer, 1, 'aligned'))).toBeLessThan(EXACT);
    expect(errorOf(layer, convert(layer, 1, 'fitted'))).toBeLessThan(EXACT);
  });
});

test.each(METHODS)(
  '%s has the new shapes, and leaves a layer with as many heads as it is',
  (method) => {
    const layer = randomLayer({ heads: 8, kvHeads: 4 }, 6);
    const { kvHeads, key, value, query, output } = convert(layer, 2, method);
    expect(kvHeads).toBe(2);
    for (const rows of [key, value]) {
      expect([rows.rows, rows.columns, rows.data.length]).toEqual([
        2 * DIM,
        COLUMNS,
        2 * DIM * COLUMNS,
      ]);
    }
    expect(query.data).toHaveLength(layer.query.data.length);
    expect(output.data).toHaveLength(layer.output.data.length);
    expect(convert(layer, 4, method)).toBe(layer);
  },
);

test('mean, first, medoid and random are what they say', () => {
  const layer = randomLayer({ heads: 6, kvHeads: 6 }, 7);
  const { key, value } = layer;
  const size = DIM * COLUMNS;
  const head = (rows: typeof key, n: number) => rows.data.subarray(n * size, (n + 1) * size);
  // Heads 1 and 2 lie near each other, so that each is nearer to the other two than head 0 is.
  for (const rows of [key, value]) {
    head(rows, 2).forEach((x, i) => (head(rows, 2)[i] = head(rows, 1)[i] + x / 8));
  }

  const mean = convert(layer, 2, 'mean');
  const sum = head(key, 3)[5] + head(key, 4)[5] + head(key, 5)[5];
  expect(head(mean.key, 1)[5]).toBeCloseTo(sum / 3, 6);
  expect(mean.query).toBe(layer.query);

  expect(head(convert(layer, 2, 'first').value, 1)).toEqual(head(value, 3));

  const medoid = head(convert(layer, 2, 'medoid').key, 0);
  expect([head(key, 1), head(key, 2)]).toContainEqual(medoid);

  const drawn = convert(layer, 2, 'random', 1);
  expect(convert(layer, 2, 'random', 1)).toEqual(drawn);
  expect(convert(layer, 2, 'random', 2)).not.toEqual(drawn);
  const deviation = (x: Float32Array) => Math.sqrt(x.reduce((a, b) => a + b * b, 0) / x.length);
  expect(deviation(drawn.key.data) / deviation(key.data)).toBeCloseTo(1, 0);
});

/** Heads' keys in one pair as complex vectors, and how far b_j and a_i leave them from one key. */
describe('one key for heads that differ', () => {
  const random = new Random(8);
  const heads = Array.from({ length: 3 }, () =>
    Array.from({ length: 5 }, (): Complex => [random.normal(), random.normal()]),
  );
  const weights = [0.2, 3, 1];
  const gram = (i: number, j: number): Complex => {
    const sum: [number, number] = [0, 0];
    heads[i].forEach(([a, b], n) => {
      const [c, d] = heads[j][n];
      sum[0] += a * c + b * d;
      sum[1] += a * d - b * c;
    });
    return sum;
  };
  const times = ([a, b]: Complex, [c, d]: Complex): Complex => [a * c - b * d, a * d + b * c];
  const keyOf = ({ combine }: KeyFit) =>
    heads[0].map((_, n) =>
      combine.reduce<Complex>(
        ([re, im], b, j) => {
          const [x, y] = times(b, heads[j][n]);
          return [re + x, im + y];
        },
        [0, 0],
      ),
    );
  const energy = (z: Complex[]) => z.reduce((sum, [re, im]) => sum + re * re + im * im, 0);
  const errorsOf = (fit: KeyFit) =>
    heads.map((head, i) =>
      energy(
        keyOf(fit).map((z, n): Complex => {
          const [re, im] = times(fit.factors[i], z);
          return [head[n][0] - re, head[n][1] - im];
        }),
      ),
    );
  const weighted = (fit: KeyFit) => errorsOf(fit).reduce((sum, e, i) => sum + weights[i] * e, 0);

  test('aligned restores the norm of each', () => {
    const fit = alignedFit(3, gram);
    const z = keyOf(fit);
    heads.forEach((head, i) => {
      const turned = z.map((entry) => times(fit.factors[i], entry));
      expect(energy(turned) / energy(head)).toBeCloseTo(1, 10);
    });
  });

  test('fitted is the best by the weights, whatever is tried beside it', () => {
    const fit = fittedFit(3, gram, weights);
    const best = weighted(fit);
    expect(best).toBeLessThan(weighted(alignedFit(3, gram)));
    for (const delta of [0.05, -0.05]) {
      const factors = fit.factors.map(([re, im], i): Complex => [re + (i === 1 ? delta : 0), im]);
      expect(weighted({ ...fit, factors })).toBeGreaterThan(best);
      const combine = fit.combine.map(([re, im], i): Complex => [re, im + (i === 2 ? delta : 0)]);
      expect(weighted({ ...fit, combine })).toBeGreaterThan(best);
    }
  });
});

test('heads of zeros, which no query asks for, give numbers all the same', () => {
  const layer = randomLayer({ heads: 4, kvHeads: 4 }, 9);
  layer.key.data.fill(0, 0, 2 * DIM * COLUMNS);
  layer.value.data.fill(0, 0, 2 * DIM * COLUMNS);
  layer.query.data.fill(0);
  for (const method of METHODS) {
    const { key, value, query, output } = convert(layer, 2, method);
    for (const { data } of [key, value, query, output])
      expect(data.every(Number.isFinite)).toBe(true);
  }
});
