/** Layers for conversion: random ones, and ones whose heads are one head in disguise. */
import type { Projections } from '../../../../lib/toolkit/convert/projections';
import type { Rows } from '../../../../lib/toolkit/convert/matrices';
import { Random } from '../../../support/random';
import { naiveAttention, type Turn } from '../../nn/naive';

export const COLUMNS = 24;
export const DIM = 8;
const HALF = DIM / 2;
const TURN: Turn = { headDim: DIM, rotaryDim: DIM, theta: 100, interleaved: false };

export interface Heads {
  heads: number;
  kvHeads: number;
}

export function randomRows(rows: number, columns: number, random: Random): Rows {
  const data = Float32Array.from({ length: rows * columns }, () => random.normal());
  return { data, rows, columns };
}

export function randomLayer({ heads, kvHeads }: Heads, seed: number): Projections {
  const random = new Random(seed);
  return {
    heads,
    kvHeads,
    headDim: DIM,
    query: randomRows(heads * DIM, COLUMNS, random),
    key: randomRows(kvHeads * DIM, COLUMNS, random),
    value: randomRows(kvHeads * DIM, COLUMNS, random),
    output: randomRows(COLUMNS, heads * DIM, random),
  };
}

/** What attention over 9 tokens puts out, in float64 by the oracle, [9, COLUMNS]. */
export function outputOf({ heads, kvHeads, query, key, value, output }: Projections): number[] {
  const random = new Random(99);
  const x = Array.from({ length: 9 * COLUMNS }, () => random.normal() / 4);
  const weights = { query: query.data, key: key.data, value: value.data, output: output.data };
  const module = { heads, kvHeads, headDim: DIM, weights, turn: TURN };
  return naiveAttention(module, { batch: 1, q: x, k: x, v: x }, { causal: true });
}

export function relativeError(actual: readonly number[], expected: readonly number[]): number {
  const energy = (x: readonly number[]): number => x.reduce((sum, value) => sum + value * value, 0);
  return Math.sqrt(energy(actual.map((value, i) => value - expected[i])) / energy(expected));
}

/** Heads `partners[g]` of the layer become heads[0] of the group with each RoPE pair turned and scaled, values mapped. */
export function disguise(
  layer: Projections,
  partners: readonly (readonly number[])[],
  maps: { scaledKeys: boolean; map: (random: Random) => number[] },
): void {
  const random = new Random(7);
  for (const [first, ...others] of partners) {
    for (const other of others) {
      turnPairs(layer.key, first, other, random, maps.scaledKeys);
      mapRows(layer.value, first, other, maps.map(random));
    }
  }
}

function turnPairs(key: Rows, from: number, to: number, random: Random, scaled: boolean): void {
  const { columns, data } = key;
  for (let pair = 0; pair < HALF; pair++) {
    const phase = 2 * Math.PI * random.uniform();
    const size = scaled ? 0.3 + 2 * random.uniform() : 1;
    const [re, im] = [size * Math.cos(phase), size * Math.sin(phase)];
    for (let c = 0; c < columns; c++) {
      const at = (head: number, row: number): number => (head * DIM + row) * columns + c;
      const [x, y] = [data[at(from, pair)], data[at(from, pair + HALF)]];
      data[at(to, pair)] = re * x - im * y;
      data[at(to, pair + HALF)] = im * x + re * y;
    }
  }
}

function mapRows(value: Rows, from: number, to: number, map: readonly number[]): void {
  const { columns, data } = value;
  for (let row = 0; row < DIM; row++) {
    for (let c = 0; c < columns; c++) {
      let sum = 0;
      for (let k = 0; k < DIM; k++) {
        sum += map[row * DIM + k] * data[(from * DIM + k) * columns + c];
      }
      data[(to * DIM + row) * columns + c] = sum;
    }
  }
}

/** Any map, far from singular: random entries on a heavy diagonal. */
export function invertible(random: Random): number[] {
  return Array.from(
    { length: DIM * DIM },
    (_, i) => random.normal() / 2 + (i % (DIM + 1) === 0 ? 2 : 0),
  );
}

/** A product of turns in random planes, times a factor. */
export function scaledRotation(random: Random): number[] {
  const map = Array.from({ length: DIM * DIM }, (_, i): number => (i % (DIM + 1) === 0 ? 1 : 0));
  for (let a = 0; a < DIM; a++) {
    for (let b = 0; b < a; b++) {
      const angle = 2 * Math.PI * random.uniform();
      for (let c = 0; c < DIM; c++) {
        const [x, y] = [map[a * DIM + c], map[b * DIM + c]];
        map[a * DIM + c] = Math.cos(angle) * x - Math.sin(angle) * y;
        map[b * DIM + c] = Math.sin(angle) * x + Math.cos(angle) * y;
      }
    }
  }
  const size = 0.5 + random.uniform();
  return map.map((entry) => entry * size);
}
