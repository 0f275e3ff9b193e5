/**
 * Decode steps of 8 sequences that share a prefix of 3,000 tokens and have tails of their own, against the same
 * sequences with a prefix each: memory, time of a step, results.
 */
import { KvCache, Tensor } from '../../lib';
import type { CacheDType, KvSequence } from '../../lib';
import { spread } from '../../lib/toolkit/statistics';
import type { Precision } from '../../lib/core/precision';
import { SeededRandom } from '../../lib/core/random';

const LAYERS = 4;
const HEADS = 32;
const KV_HEADS = 8;
const HEAD_DIM = 128;
const PREFIX = 3000;
const SEQUENCES = 8;
const CAPACITY = 4096;
/** Tokens of a sequence's own: all different, none a whole block. */
const TAIL_STEP = 23;
const ROUNDS = 60;
const BAR = 0.5;
/** Of results of the two, relative to the largest: sums are the same in another order. */
const TOLERANCE: Readonly<Record<CacheDType, number>> = {
  f32: 1e-5,
  f16: 1e-5,
  bf16: 1e-5,
  q8: 1e-3,
  q4: 2e-2,
};

/** Where weights are rounded to bf16. */
const FAST = 1.6e-2;

const random = new SeededRandom(11);

function normals(shape: number[]): Tensor<'f32'> {
  const tensor = Tensor.zeros(shape);
  for (let i = 0; i < tensor.data.length; i++) {
    // Irwin-Hall: near enough to normal.
    tensor.data[i] = (random.next() + random.next() + random.next() - 1.5 * 2 ** 32) / 2 ** 31;
  }
  return tensor;
}

interface Tokens {
  k: Tensor<'f32'>;
  v: Tensor<'f32'>;
}

function tokens(count: number): Tokens {
  return { k: normals([count, KV_HEADS, HEAD_DIM]), v: normals([count, KV_HEADS, HEAD_DIM]) };
}

function append(sequence: KvSequence, { k, v }: Tokens): void {
  for (let layer = 0; layer < LAYERS; layer++) sequence.append(layer, k, v);
}

/** Sequences of the same tokens, the prefix held once or by each of its own. */
function build(dtype: CacheDType, prefix: Tokens, tails: readonly Tokens[], shared: boolean) {
  const cache = new KvCache({
    layers: LAYERS,
    kvHeads: KV_HEADS,
    headDim: HEAD_DIM,
    capacity: CAPACITY,
    sequences: SEQUENCES,
    dtype,
  });
  const first = cache.sequence();
  append(first, prefix);
  const prefixBytes = cache.usedBytes;
  const sequences = [first];
  for (let i = 1; i < SEQUENCES; i++) {
    const sequence = shared ? first.fork() : cache.sequence();
    if (!shared) append(sequence, prefix);
    sequences.push(sequence);
  }
  sequences.forEach((sequence, i) => append(sequence, tails[i]));
  return { cache, sequences, prefixBytes };
}

export function sharedPrefix(dtype: CacheDType, precision: Precision): boolean {
  const prefix = tokens(PREFIX);
  const tails = Array.from({ length: SEQUENCES }, (_, i) => tokens(1 + i * TAIL_STEP));
  const sides = [true, false].map((shared) => build(dtype, prefix, tails, shared));
  const next = tokens(SEQUENCES);
  const q = normals([SEQUENCES, HEADS, HEAD_DIM]);
  const outs = sides.map(() => Tensor.zeros([SEQUENCES, HEADS, HEAD_DIM]));
  const run = (side: number): number => {
    const { cache, sequences } = sides[side];
    const start = process.hrtime.bigint();
    const step = cache.step(sequences.map((sequence) => ({ sequence, tokens: 1 })));
    for (let layer = 0; layer < LAYERS; layer++) {
      step.append(layer, next.k, next.v);
      step.attend(layer, q, outs[side], { precision });
    }
    const elapsed = Number(process.hrtime.bigint() - start) / 1e3;
    for (const sequence of sequences) sequence.truncate(sequence.length - 1);
    return elapsed;
  };
  const samples: number[][] = [[], []];
  for (let round = -5; round < ROUNDS; round++) {
    for (const side of [0, 1]) {
      const elapsed = run(side);
      if (round >= 0) samples[side].push(elapsed);
    }
  }
  const passed = report(dtype, precision, sides, samples, outs);
  for (const { cache } of sides) cache.dispose();
  return passed;
}

function report(
  dtype: CacheDType,
  precision: Precision,
  sides: readonly ReturnType<typeof build>[],
  samples: readonly number[][],
  outs: readonly Tensor<'f32'>[],
): boolean {
  const [{ cache, prefixBytes }, apart] = sides;
  const [shared, own] = samples.map(spread);
  const ratio = shared.median / own.median;
  const difference = largestDifference(outs[0].data, outs[1].data);
  const megabytes = (bytes: number): string => `${(bytes / 1e6).toFixed(1)} MB`;
  console.log(
    `${dtype}, ${precision}: ${megabytes(cache.usedBytes)} held (prefix ${megabytes(prefixBytes)}), unshared ${megabytes(apart.cache.usedBytes)}`,
  );
  const range = ({ median, p10, p90 }: ReturnType<typeof spread>): string =>
    `${median.toFixed(0)} µs (p10 ${p10.toFixed(0)}, p90 ${p90.toFixed(0)})`;
  console.log(`  step of ${LAYERS} layers: ${range(shared)}, unshared ${range(own)}`);
  console.log(
    `  ${ratio.toFixed(2)} of the time (bar ${BAR}), largest difference ${difference.toExponential(1)}`,
  );
  return ratio < BAR && difference <= (precision === 'fast' ? FAST : TOLERANCE[dtype]);
}

function largestDifference(a: Float32Array, b: Float32Array): number {
  let largest = 0;
  let difference = 0;
  for (let i = 0; i < a.length; i++) {
    largest = Math.max(largest, Math.abs(a[i]));
    difference = Math.max(difference, Math.abs(a[i] - b[i]));
  }
  return difference / largest;
}
