/** Caches of every kind, small, and what attention over a sequence gives, for tests that compare sequences bit by bit. */
import { attention, KvCache, Rope, Tensor } from '../../lib';
import type { KvCacheOptions, KvSequence } from '../../lib';
import { Random } from './random';

const SMALL = { layers: 2, kvHeads: 2, headDim: 8, sequences: 3, capacity: 200 };
const WINDOWED = { ...SMALL, window: 90, sinkTokens: 3, slack: 40 };

/** By name; each call makes the options anew. */
export const KINDS: Record<string, () => KvCacheOptions> = {
  f32: () => ({ ...SMALL, model: 'm' }),
  f16: () => ({ ...SMALL, dtype: 'f16', valueDim: 5 }),
  'bf16, windowed': () => ({ ...WINDOWED, dtype: 'bf16' }),
  q8: () => ({ ...SMALL, dtype: 'q8' }),
  'q8, windowed, recent': () => ({ ...WINDOWED, dtype: 'q8', recent: 70 }),
  'q4, windowed': () => ({ ...WINDOWED, dtype: 'q4' }),
  'q4 keys, bf16 values, recent': () => ({ ...SMALL, dtype: { k: 'q4', v: 'bf16' }, recent: 1 }),
  'layers of different shape': () => ({
    ...SMALL,
    dtype: 'f16',
    slack: 60,
    layers: [
      { window: 40, sinkTokens: 2 },
      { kvHeads: 1 },
      { headDim: 16, window: 40, sinkTokens: 2 },
    ],
  }),
  'positions of its own': () => ({
    ...WINDOWED,
    dtype: 'q8',
    positions: 'cache',
    rope: new Rope({ headDim: 8 }),
  }),
};

/** Appends random tokens to every layer. */
export function appendRandom(sequence: KvSequence, random: Random, tokens: number): void {
  for (let i = 0; i < sequence.cache.layers; i++) {
    const { kvHeads, headDim, valueDim } = sequence.layer(i);
    const k = Tensor.from(random.normals(tokens * kvHeads * headDim), [tokens, kvHeads, headDim]);
    const v = Tensor.from(random.normals(tokens * kvHeads * valueDim), [tokens, kvHeads, valueDim]);
    sequence.append(i, k, v);
  }
}

/** The bits of one query's attention over each layer. */
export function attended(sequence: KvSequence): string {
  return Array.from({ length: sequence.cache.layers }, (_, i) => {
    const { kvHeads, headDim } = sequence.layer(i);
    const heads = 2 * kvHeads;
    const q = Tensor.from(new Random(7).normals(heads * headDim), [1, 1, heads, headDim]);
    const out = attention(q, sequence.layer(i)).data;
    return Buffer.from(out.buffer, out.byteOffset, out.byteLength).toString('hex');
  }).join(' ');
}

/** A cache of a kind with a sequence of so many tokens, appended in chunks. */
export function filled(
  kind: string,
  tokens: number,
  seed = 1,
): { cache: KvCache; sequence: KvSequence } {
  const cache = new KvCache(KINDS[kind]());
  const sequence = cache.sequence();
  const random = new Random(seed);
  for (let left = tokens; left > 0;) {
    const chunk = Math.min(left, random.int(1, 33));
    appendRandom(sequence, random, chunk);
    left -= chunk;
  }
  return { cache, sequence };
}
