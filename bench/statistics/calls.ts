/**
 * What statistics cost a decode call: the same call with `stats` and without, in turns, over a cache of so many layers
 * that keys come from memory. Entropies are checked against float64 first.
 */
import { attention, AttentionStats, KvCache, Tensor } from '../../lib';
import type { CacheDType } from '../../lib';
import { SeededRandom } from '../../lib/core/random';
import { compareInTurns, type Comparison } from './turns';

/** More than any L3 of one core complex that this has run on. */
const TOUCHED_BYTES = 160 * 2 ** 20;

interface Shape {
  heads: number;
  kvHeads: number;
  headDim: number;
  context: number;
  dtype: CacheDType;
}

const SHAPES: readonly Shape[] = [
  ...(['f32', 'bf16', 'q8', 'q4'] as const).map((dtype) => ({
    ...{ heads: 32, kvHeads: 8, headDim: 128, context: 4096, dtype },
  })),
  { heads: 15, kvHeads: 5, headDim: 64, context: 4096, dtype: 'bf16' },
  { heads: 14, kvHeads: 2, headDim: 64, context: 1000, dtype: 'f32' },
  { heads: 12, kvHeads: 12, headDim: 64, context: 777, dtype: 'q8' },
];

/** Of the entropy, by what is stored: a cache rounds, and integers multiply queries of 8 (q4) or 16 bits. */
const TOLERANCE: Record<CacheDType, number> = {
  f32: 1e-4,
  f16: 2e-3,
  bf16: 5e-3,
  q8: 5e-3,
  q4: 5e-2,
};

const BYTES: Record<CacheDType, number> = { f32: 4, f16: 2, bf16: 2, q8: 1, q4: 0.5 };

/** A number of mean 0 and variance 1. */
function deviate(random: SeededRandom): number {
  return Math.sqrt(12) * (random.uniform() - 0.5);
}

/** A cache filled with such numbers, and its keys, the same in each layer. */
function fill({ kvHeads, headDim, context, dtype }: Shape) {
  const bytes = 2 * kvHeads * headDim * context * BYTES[dtype];
  const layers = Math.ceil(TOUCHED_BYTES / bytes);
  const cache = new KvCache({ layers, kvHeads, headDim, capacity: context, dtype });
  const sequence = cache.sequence();
  const random = new SeededRandom(1);
  const rows = (): Tensor<'f32'> =>
    Tensor.view(
      Float32Array.from({ length: kvHeads * headDim * context }, () => deviate(random)),
      [context, kvHeads, headDim],
    );
  const [k, v] = [rows(), rows()];
  for (let layer = 0; layer < layers; layer++) sequence.append(layer, k, v);
  return { cache, sequence, k: k.data };
}

/** H / ln n of one head's softmax, float64. */
function entropyOf(q: Float32Array, k: Float32Array, shape: Shape, head: number): number {
  const { heads, kvHeads, headDim, context } = shape;
  const kvHead = Math.floor(head / (heads / kvHeads));
  const scores = Array.from({ length: context }, (_, j) => {
    let dot = 0;
    for (let d = 0; d < headDim; d++) {
      dot += q[head * headDim + d] * k[(j * kvHeads + kvHead) * headDim + d];
    }
    return dot / Math.sqrt(headDim);
  });
  const top = Math.max(...scores);
  const weights = scores.map((s) => Math.exp(s - top));
  const sum = weights.reduce((a, b) => a + b);
  const entropy = -weights.reduce((h, w) => h + (w / sum) * Math.log(w / sum), 0);
  return entropy / Math.log(context);
}

/** One row of the table; times are microseconds a call. */
export interface Measured extends Comparison {
  name: string;
  context: number;
  cache: string;
  /** Largest, of the entropies against float64. */
  error: number;
}

function measure(shape: Shape): Measured {
  const { heads, kvHeads, headDim, context, dtype } = shape;
  const { cache, sequence, k } = fill(shape);
  const random = new SeededRandom(2);
  const q = Tensor.from(
    Array.from({ length: heads * headDim }, () => deviate(random)),
    [1, 1, heads, headDim],
  );
  const out = Tensor.zeros([1, 1, heads, headDim]);
  const stats = new AttentionStats();
  attention(q, sequence.layer(0), { out, stats });
  let error = 0;
  for (let head = 0; head < heads; head++) {
    error = Math.max(error, Math.abs(stats.entropy[head] - entropyOf(q.data, k, shape, head)));
  }
  if (!(error <= TOLERANCE[dtype])) throw new Error(`${dtype}: entropy is off by ${error}`);

  const views = Array.from({ length: cache.layers }, (_, layer) => sequence.layer(layer));
  const timed = (options: { out: Tensor<'f32'>; stats?: AttentionStats }): number => {
    const start = process.hrtime.bigint();
    for (const layer of views) attention(q, layer, options);
    return Number(process.hrtime.bigint() - start) / 1e3 / views.length;
  };
  const comparison = compareInTurns(
    () => timed({ out }),
    () => timed({ out, stats }),
  );
  cache.dispose();
  return { ...comparison, name: `${heads}/${kvHeads}/${headDim}`, context, cache: dtype, error };
}

/** Of each shape whose cache dtype is wanted; of all where none is named. */
export function* measureCalls(wanted: readonly string[]): Generator<Measured> {
  for (const shape of SHAPES) {
    if (wanted.length === 0 || wanted.includes(shape.dtype)) yield measure(shape);
  }
}
