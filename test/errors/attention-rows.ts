/** Calls of attention, attentionBackward and mergeAttention that must be refused. */
import {
  attention,
  attentionAsync,
  attentionBackward,
  AttentionStats,
  mergeAttention,
  Tensor,
  type AttentionOptions,
} from '../../lib';
import { kv, q, SHAPE, zeros, type Row } from './rows';

/** attention over good inputs, but for these options. */
function withOptions(options: Record<string, unknown>): () => unknown {
  return () => attention(q(), kv(), kv(), options as AttentionOptions<'f32'>);
}

const GOOD = { out: q(), lse: zeros(1, 2, 4), gradOut: q() };

/** attentionBackward over good inputs, but for these options. */
function backward(options: Record<string, unknown>): () => unknown {
  return () => attentionBackward(q(), kv(), kv(), { ...GOOD, ...options });
}

export const ATTENTION: Row[] = [
  [
    'INVALID_ARGUMENT',
    'q',
    'a query that is no tensor',
    () => attention(new Float32Array(64) as never, kv(), kv()),
  ],
  ['INVALID_ARGUMENT', 'v', 'missing values', () => attention(q(), kv(), undefined as never)],
  [
    'INVALID_ARGUMENT',
    'options',
    'options that are no object',
    () => attention(q(), kv(), kv(), 3 as never),
  ],
  ['INVALID_ARGUMENT', 'options.causal', 'causal of another type', withOptions({ causal: 1 })],
  [
    'INVALID_ARGUMENT',
    'options.returnLse',
    'returnLse of another type',
    withOptions({ returnLse: 'yes' }),
  ],
  ['INVALID_ARGUMENT', 'options.window', 'a broken window', withOptions({ window: 1.5 })],
  [
    'INVALID_ARGUMENT',
    'options.stats',
    'statistics into an array',
    withOptions({ stats: new Float32Array(40) }),
  ],
  ['INVALID_ARGUMENT', 'options', 'statistics of a number', () => new AttentionStats(4 as never)],
  [
    'INVALID_ARGUMENT',
    'options.recentTokens',
    'half a recent token',
    () => new AttentionStats({ recentTokens: 0.5 }),
  ],
  [
    'OUT_OF_RANGE',
    'options.sinkTokens',
    'fewer than no sink tokens',
    () => new AttentionStats({ sinkTokens: -1 }),
  ],
  ['INVALID_ARGUMENT', 'options.scale', 'a scale of another type', withOptions({ scale: '1' })],
  ['INVALID_ARGUMENT', 'options.mask', 'a mask that is an array', withOptions({ mask: [1] })],
  [
    'INVALID_ARGUMENT',
    'options.signal',
    'a signal that is none',
    () => attentionAsync(q(), kv(), kv(), { signal: {} as AbortSignal }),
  ],
  ['INVALID_RANK', 'q', 'a query of rank 3', () => attention(zeros(2, 4, 8), kv(), kv())],
  ['INVALID_RANK', 'k', 'keys of rank 5', () => attention(q(), zeros(1, 3, 2, 8, 1), kv())],
  ['INVALID_RANK', 'v', 'values of rank 1', () => attention(q(), kv(), zeros(48))],
  ['INVALID_RANK', 'options.bias', 'a bias of rank 2', withOptions({ bias: zeros(2, 3) })],
  [
    'INVALID_RANK',
    'options.alibiSlopes',
    'slopes of rank 2',
    withOptions({ alibiSlopes: zeros(1, 4) }),
  ],
  [
    'INVALID_SHAPE',
    'k',
    'another batch',
    () => attention(q(), zeros(2, 3, 2, 8), zeros(2, 3, 2, 8)),
  ],
  ['INVALID_SHAPE', 'k', 'another head dim', () => attention(q(), zeros(1, 3, 2, 7), kv())],
  ['INVALID_SHAPE', 'v', 'another number of keys', () => attention(q(), kv(), zeros(1, 4, 2, 8))],
  [
    'INVALID_SHAPE',
    'v',
    'another number of KV heads',
    () => attention(q(), kv(), zeros(1, 3, 4, 8)),
  ],
  ['INVALID_SHAPE', 'q', 'no heads', () => attention(zeros(1, 2, 0, 8), kv(), kv())],
  ['INVALID_SHAPE', 'k', 'no KV heads', () => attention(q(), zeros(1, 3, 0, 8), zeros(1, 3, 0, 8))],
  ['INVALID_SHAPE', 'v', 'values of no dims', () => attention(q(), kv(), zeros(1, 3, 2, 0))],
  [
    'INVALID_SHAPE',
    'options.mask',
    'a mask of another size',
    withOptions({ mask: Tensor.zeros([1, 1, 2, 4], 'u8') }),
  ],
  [
    'INVALID_SHAPE',
    'options.bias',
    'a bias of 2 heads for 4',
    withOptions({ bias: zeros(1, 2, 2, 3) }),
  ],
  [
    'INVALID_SHAPE',
    'options.sinkLogits',
    'a sink for each KV head',
    withOptions({ sinkLogits: zeros(2) }),
  ],
  [
    'INVALID_SHAPE',
    'options.out',
    'an output of another shape',
    withOptions({ out: zeros(1, 2, 4, 7) }),
  ],
  [
    'INVALID_DTYPE',
    'q',
    'integers',
    () => attention(Tensor.zeros(SHAPE, 'i32') as never, kv(), kv()),
  ],
  [
    'INVALID_DTYPE',
    'k',
    'keys of another dtype',
    () => attention(q(), kv().to('f16') as never, kv()),
  ],
  [
    'INVALID_DTYPE',
    'v',
    'values of another dtype',
    () => attention(q(), kv(), kv().to('bf16') as never),
  ],
  ['INVALID_DTYPE', 'options.mask', 'a mask of f32', withOptions({ mask: zeros(1, 1, 2, 3) })],
  [
    'INVALID_DTYPE',
    'options.bias',
    'a bias of f16',
    withOptions({ bias: Tensor.zeros([1, 1, 2, 3], 'f16') }),
  ],
  [
    'INVALID_DTYPE',
    'options.sinkLogits',
    'sinks of u8',
    withOptions({ sinkLogits: Tensor.zeros([4], 'u8') }),
  ],
  [
    'INVALID_DTYPE',
    'options.out',
    'an output narrower than asked',
    withOptions({ out: Tensor.zeros(SHAPE, 'f16') }),
  ],
  [
    'HEADS_NOT_DIVISIBLE',
    'q',
    '4 query heads for 3 KV heads',
    () => attention(q(), zeros(1, 3, 3, 8), zeros(1, 3, 3, 8)),
  ],
  [
    'HEADS_NOT_DIVISIBLE',
    'q',
    'more KV heads than query heads',
    () => attention(q(), zeros(1, 3, 8, 8), zeros(1, 3, 8, 8)),
  ],
  [
    'INVALID_ARGUMENT',
    'options.precision',
    'an unknown precision',
    withOptions({ precision: 'low' }),
  ],
  ['NON_FINITE', 'options.scale', 'scale NaN', withOptions({ scale: NaN })],
  ['NON_FINITE', 'options.scale', 'an infinite scale', withOptions({ scale: -Infinity })],
  ['NON_FINITE', 'options.scale', 'a scale that f32 cannot hold', withOptions({ scale: 1e300 })],
  ['NON_FINITE', 'options.softcap', 'softcap NaN', withOptions({ softcap: NaN })],
  ['NON_FINITE', 'options.window', 'window NaN', withOptions({ window: NaN })],
  [
    'NON_FINITE',
    'options.sinkTokens',
    'infinitely many sink tokens',
    withOptions({ sinkTokens: Infinity }),
  ],
  ['OUT_OF_RANGE', 'options.window', 'window 0', withOptions({ window: 0 })],
  ['OUT_OF_RANGE', 'options.window', 'a negative window', withOptions({ window: -3 })],
  ['OUT_OF_RANGE', 'options.sinkTokens', 'negative sink tokens', withOptions({ sinkTokens: -1 })],
  ['OUT_OF_RANGE', 'options.softcap', 'a negative softcap', withOptions({ softcap: -1 })],
  [
    'OUT_OF_RANGE',
    'options.dropout.probability',
    'dropout of 1',
    withOptions({ dropout: { probability: 1, seed: 1 } }),
  ],
  [
    'OVERLAP',
    'options.out',
    'an output that is the query',
    () => {
      const query = q();
      return attention(query, kv(), kv(), { out: query });
    },
  ],
  [
    'OVERLAP',
    'options.out',
    'an output one element into the values',
    () => {
      const memory = new Float32Array(200);
      const values = Tensor.view(memory.subarray(0, 48), [1, 3, 2, 8]);
      return attention(q(), kv(), values, {
        out: Tensor.view(memory.subarray(47, 47 + 64), SHAPE),
      });
    },
  ],
  [
    'OVERLAP',
    'options.out',
    'an output over the bias',
    () => {
      const memory = new Float32Array(64);
      const bias = Tensor.view(memory.subarray(10, 16), [1, 1, 2, 3]);
      return attention(q(), kv(), kv(), { bias, out: Tensor.view(memory, SHAPE) });
    },
  ],
  [
    'INVALID_ARGUMENT',
    'options',
    'a backward pass without options',
    () => attentionBackward(q(), kv(), kv(), undefined as never),
  ],
  ['INVALID_ARGUMENT', 'options.out', 'no output', backward({ out: undefined })],
  ['INVALID_ARGUMENT', 'options.mask', 'a mask to go back through', backward({ mask: kv() })],
  ['INVALID_ARGUMENT', 'options.dropout', 'dropout to go back through', backward({ dropout: {} })],
  ['INVALID_SHAPE', 'options.out', 'an output of another shape', backward({ out: kv() })],
  ['INVALID_SHAPE', 'options.lse', 'an LSE of 2 heads', backward({ lse: zeros(1, 2, 2) })],
  ['INVALID_SHAPE', 'options.gradOut', 'a gradient of another shape', backward({ gradOut: kv() })],
  [
    'INVALID_DTYPE',
    'q',
    'a backward pass of f16',
    () => attentionBackward(q().to('f16') as never, kv(), kv(), GOOD),
  ],
  ['INVALID_DTYPE', 'options.lse', 'an LSE of f16', backward({ lse: zeros(1, 2, 4).to('f16') })],
  ['NON_FINITE', 'options.scale', 'a scale that is NaN', backward({ scale: NaN })],
];

export const MERGE: Row[] = [
  ['INVALID_ARGUMENT', 'parts', 'no parts', () => mergeAttention([])],
  ['INVALID_ARGUMENT', 'parts[0]', 'parts that are tensors', () => mergeAttention([q()] as never)],
  [
    'INVALID_SHAPE',
    'parts[0].lse',
    'an LSE of another shape',
    () => mergeAttention([{ out: q(), lse: zeros(1, 2, 3) }]),
  ],
  [
    'INVALID_SHAPE',
    'parts[1].out',
    'parts of two shapes',
    () =>
      mergeAttention([
        { out: q(), lse: zeros(1, 2, 4) },
        { out: zeros(1, 2, 4, 7), lse: zeros(1, 2, 4) },
      ]),
  ],
  [
    'INVALID_DTYPE',
    'parts[1].out',
    'parts of two dtypes',
    () =>
      mergeAttention([
        { out: q(), lse: zeros(1, 2, 4) },
        { out: q().to('f16') as never, lse: zeros(1, 2, 4) },
      ]),
  ],
];
