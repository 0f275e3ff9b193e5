/** Caches that cannot be, and what a cache must refuse. */
import { attention, KvCache, Tensor, type KvCacheOptions } from '../../lib';
import { zeros, type Row } from './rows';

export function cache(options: Partial<Record<keyof KvCacheOptions, unknown>> = {}): KvCache {
  return new KvCache({
    layers: 2,
    kvHeads: 2,
    headDim: 8,
    capacity: 8,
    ...options,
  } as KvCacheOptions);
}

/** A sequence of `tokens` tokens. */
function filled(tokens: number, options: Partial<KvCacheOptions> = {}) {
  const sequence = cache({ layers: 1, ...options }).sequence();
  sequence.append(0, zeros(tokens, 2, 8), zeros(tokens, 2, 8));
  return sequence;
}

export const CACHE: Row[] = [
  ['INVALID_ARGUMENT', 'options', 'no options', () => new KvCache(undefined as never)],
  ['INVALID_ARGUMENT', 'options.layers', 'layers missing', () => cache({ layers: undefined })],
  ['OUT_OF_RANGE', 'options.layers', 'no layers', () => cache({ layers: 0 })],
  ['OUT_OF_RANGE', 'options.capacity', 'no capacity', () => cache({ capacity: 0 })],
  ['OUT_OF_RANGE', 'options.window', 'window 0', () => cache({ window: 0 })],
  ['OUT_OF_RANGE', 'options.sinkTokens', 'negative sinks', () => cache({ sinkTokens: -1 })],
  ['OUT_OF_RANGE', 'options.slack', 'negative slack', () => cache({ window: 4, slack: -1 })],
  [
    'OUT_OF_RANGE',
    'options.capacity',
    'window and sinks beyond the capacity',
    () => cache({ window: 6, sinkTokens: 3 }),
  ],
  [
    'OUT_OF_RANGE',
    'options.capacity',
    'slack beyond the capacity',
    () => cache({ window: 4, slack: 5 }),
  ],
  [
    'OUT_OF_RANGE',
    'options.capacity',
    'a size beyond what is addressed',
    () => cache({ capacity: 2 ** 50 }),
  ],
  [
    'OUT_OF_MEMORY',
    'options.capacity',
    'more than memory holds',
    () => cache({ layers: 1, capacity: 2 ** 34, headDim: 512, kvHeads: 64 }),
  ],
  [
    'NON_FINITE',
    'v',
    'an Infinity into q8',
    () => {
      const v = Tensor.from(new Array<number>(16).fill(-Infinity), [1, 2, 8]);
      cache({ dtype: 'q8' })
        .sequence()
        .append(0, zeros(1, 2, 8), v);
    },
  ],
  ['INVALID_DTYPE', 'options.dtype', 'integer storage', () => cache({ dtype: 'i32' })],
  [
    'CAPACITY_EXCEEDED',
    'cache',
    'one sequence too many',
    () => {
      const c = cache();
      c.sequence();
      c.sequence();
    },
  ],
  [
    'CAPACITY_EXCEEDED',
    'k',
    'a token too many',
    () => filled(8).append(0, zeros(1, 2, 8), zeros(1, 2, 8)),
  ],
  [
    'POSITION_EVICTED',
    'q',
    'a row whose window has gone',
    () => attention(zeros(1, 3, 4, 8), filled(20, { window: 8, capacity: 8 }).layer(0)),
  ],
  [
    'SLACK_EXCEEDED',
    'length',
    'a rollback beyond the slack',
    () => filled(20, { window: 6, capacity: 8 }).truncate(17),
  ],
  ['OUT_OF_RANGE', 'length', 'a rollback to beyond the end', () => filled(3).truncate(4)],
  [
    'LAYERS_UNEVEN',
    'layer',
    'a layer twice in a step',
    () => {
      const s = cache().sequence();
      s.append(0, zeros(1, 2, 8), zeros(1, 2, 8));
      s.append(0, zeros(1, 2, 8), zeros(1, 2, 8));
    },
  ],
  [
    'LAYERS_UNEVEN',
    'k',
    'another number of tokens in a step',
    () => {
      const s = cache().sequence();
      s.append(0, zeros(1, 2, 8), zeros(1, 2, 8));
      s.append(1, zeros(2, 2, 8), zeros(2, 2, 8));
    },
  ],
  ['OUT_OF_RANGE', 'layer', 'a layer that is not there', () => filled(1).layer(1)],
  ['INVALID_RANK', 'k', 'keys of rank 2', () => filled(1).append(0, zeros(2, 8), zeros(1, 2, 8))],
  [
    'INVALID_SHAPE',
    'k',
    'keys of another head dim',
    () => filled(1).append(0, zeros(1, 2, 7), zeros(1, 2, 8)),
  ],
  [
    'INVALID_SHAPE',
    'v',
    'fewer values than keys',
    () => filled(1).append(0, zeros(2, 2, 8), zeros(1, 2, 8)),
  ],
  [
    'INVALID_DTYPE',
    'v',
    'values of another dtype',
    () => filled(1).append(0, zeros(1, 2, 8), zeros(1, 2, 8).to('f16')),
  ],
  [
    'INVALID_SHAPE',
    'q',
    'a batch of 2 over a sequence',
    () => attention(zeros(2, 1, 4, 8), filled(1).layer(0)),
  ],
  [
    'HEADS_NOT_DIVISIBLE',
    'q',
    '3 heads over 2 KV heads',
    () => attention(zeros(1, 1, 3, 8), filled(1).layer(0)),
  ],
  [
    'INVALID_ARGUMENT',
    'options.window',
    'a window wider than the cache',
    () => attention(zeros(1, 1, 4, 8), filled(5, { window: 4 }).layer(0), { window: 5 }),
  ],
  [
    'DISPOSED',
    'sequence',
    'a disposed sequence',
    () => {
      const s = filled(1);
      s.dispose();
      s.truncate(0);
    },
  ],
];
