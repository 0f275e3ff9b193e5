/**
 * Attention over a cache of floats gives a token the same bits whether its prompt came whole, in chunks or token by
 * token, and whatever else the step has: runs of keys end at fixed positions. Not so caches that quantise (the newest
 * block is read as it came), cascades, 'fast' on AMX tiles.
 */
import { KvCache, Tensor, type FloatDType } from '../../lib';
import { getBackend } from '../../lib/backend';
import { expectSameBits } from '../support/compare';
import { Random } from '../support/random';
import { axis } from '../support/samples';
import { normals } from '../support/tensors';

const [KV_HEADS, GROUP, DIM] = [2, 3, 24];
const { kind, isa } = getBackend().info;
/** Past two cuts; JavaScript has none. */
const TOKENS = kind === 'js' ? 160 : 700;
const random = new Random(41);
const floats = (count: number): Float32Array => Float32Array.from(normals(random, count, 'f32'));
const k = floats(TOKENS * KV_HEADS * DIM);
const v = floats(TOKENS * KV_HEADS * DIM);
const q = floats(TOKENS * KV_HEADS * GROUP * DIM);

function rows(data: Float32Array, from: number, count: number, heads: number): Tensor<'f32'> {
  const width = heads * DIM;
  return Tensor.view(data.subarray(from * width, (from + count) * width), [count, heads, DIM]);
}

interface Run {
  dtype: FloatDType;
  precision: 'exact' | 'fast';
  window?: number;
}

/** Attention of every token, in chunks of these sizes; with another sequence of as many tokens in each step, or alone. */
function attended({ dtype, precision, window }: Run, chunks: number[], beside: boolean) {
  const cache = new KvCache({
    layers: 1,
    kvHeads: KV_HEADS,
    headDim: DIM,
    capacity: TOKENS,
    sequences: 2,
    dtype,
    ...(window === undefined ? {} : { window }),
  });
  const sequences = [cache.sequence(), cache.sequence()].slice(0, beside ? 2 : 1);
  const out = new Float32Array(q.length);
  let at = 0;
  for (const count of chunks) {
    const step = cache.step(
      sequences.map((sequence) => ({ sequence, tokens: count })),
      { cascade: false },
    );
    const twice = (data: Float32Array, heads: number): Tensor<'f32'> => {
      const one = rows(data, at, count, heads);
      const both = new Float32Array(one.data.length * sequences.length);
      sequences.forEach((_, i) => both.set(one.data, i * one.data.length));
      return Tensor.view(both, [count * sequences.length, heads, DIM]);
    };
    step.append(0, twice(k, KV_HEADS), twice(v, KV_HEADS));
    const heads = KV_HEADS * GROUP;
    const result = step.attend(0, twice(q, heads), undefined, { precision });
    out.set(result.data.subarray(0, count * heads * DIM), at * heads * DIM);
    at += count;
  }
  return out;
}

const RUNS: Run[] = [
  { dtype: 'f32', precision: 'exact' },
  { dtype: 'bf16', precision: 'exact' },
  { dtype: 'bf16', precision: 'fast' },
  { dtype: 'f16', precision: 'exact', window: Math.floor(TOKENS / 2) },
];

test.each(axis(RUNS, 2))('$dtype, $precision, window $window', (run) => {
  if (isa === 'amx' && run.precision === 'fast') return;
  const alone = attended(run, new Array<number>(TOKENS).fill(1), false);
  const third = Math.floor(TOKENS / 3);
  for (const chunks of [
    [TOKENS],
    [1, TOKENS - 70, 69],
    [64, 64, TOKENS - 128],
    [third, 1, 1, TOKENS - third - 2],
  ])
    for (const beside of [false, true])
      expectSameBits(`${chunks.join(' + ')} tokens`, attended(run, chunks, beside), alone);
});
