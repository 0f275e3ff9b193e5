/**
 * A million tokens through a windowed cache, in chunks of many sizes: resident memory stays flat, and what is left at the
 * end is what an unbounded cache would show.
 */
import { attention, KvCache, Tensor } from '../../lib';
import type { CacheDType } from '../../lib';
import { attendRow, storedError, toleranceOf } from '../../lib/cli/bench/oracle';

const TOKENS = 1_000_000;
const WINDOW = 4096;
const SINK_TOKENS = 4;
const HEADS = 8;
const KV_HEADS = 2;
const HEAD_DIM = 64;
const CHUNKS = [1, 2, 255, 256, 61, 1000];
const REPORTS = 10;
/** Growth of resident memory after the first tenth. */
const BAR_BYTES = 4e6;

/** Number `i` of token `t`: the same whenever it is asked for. */
function numberOf(t: number, i: number): number {
  let x = Math.imul(t + 1, 0x9e3779b1) ^ Math.imul(i + 1, 0x85ebca6b);
  x = Math.imul(x ^ (x >>> 15), 0x2c1b3c6d);
  return (x ^ (x >>> 12)) / 2 ** 31;
}

const WIDTH = KV_HEADS * HEAD_DIM;

/** Keys are numbers [0, WIDTH) of a token, values the next ones. */
function fill(into: Float32Array, from: number, tokens: number, first: number): void {
  for (let t = 0; t < tokens; t++) {
    for (let i = 0; i < WIDTH; i++) into[t * WIDTH + i] = numberOf(from + t, first + i);
  }
}

export function stream(dtype: CacheDType): boolean {
  const cache = new KvCache({
    layers: 1,
    kvHeads: KV_HEADS,
    headDim: HEAD_DIM,
    capacity: WINDOW + SINK_TOKENS + Math.max(...CHUNKS),
    window: WINDOW,
    sinkTokens: SINK_TOKENS,
    dtype,
  });
  const sequence = cache.sequence();
  const buffers = [0, 1].map(() => new Float32Array(Math.max(...CHUNKS) * WIDTH));
  const resident: number[] = [];
  for (let chunk = 0; sequence.length < TOKENS; chunk++) {
    const tokens = Math.min(CHUNKS[chunk % CHUNKS.length], TOKENS - sequence.length);
    const [k, v] = buffers.map((buffer, i) => {
      fill(buffer, sequence.length, tokens, i * WIDTH);
      return Tensor.view(buffer.subarray(0, tokens * WIDTH), [tokens, KV_HEADS, HEAD_DIM]);
    });
    sequence.append(0, k, v);
    const due = Math.floor((sequence.length * REPORTS) / TOKENS);
    if (due > resident.length) resident.push(process.memoryUsage.rss());
  }
  const growth = resident[resident.length - 1] - resident[0];
  const q = Tensor.zeros([1, 1, HEADS, HEAD_DIM]);
  for (let i = 0; i < q.data.length; i++) q.data[i] = 2 * numberOf(-7, i);
  const out = attention(q, sequence.layer(0));
  const error = storedError(dtype, expected(q), out.data);
  const megabytes = resident.map((bytes) => (bytes / 1e6).toFixed(0)).join(' ');
  console.log(`${dtype}: ${TOKENS} tokens, start ${sequence.start}; resident MB ${megabytes}`);
  console.log(
    `  grown ${(growth / 1e6).toFixed(1)} MB (bar ${BAR_BYTES / 1e6}), error ${error.toExponential(1)}`,
  );
  cache.dispose();
  return growth <= BAR_BYTES && error <= toleranceOf(dtype, 'exact');
}

/** Attention of q over the sinks and the window, naively. */
function expected(q: Tensor<'f32'>): number[] {
  const keys = SINK_TOKENS + WINDOW;
  const [k, v] = [0, WIDTH].map((first) => {
    const data = new Float32Array(keys * WIDTH);
    fill(data, 0, SINK_TOKENS, first);
    fill(data.subarray(SINK_TOKENS * WIDTH), TOKENS - WINDOW, WINDOW, first);
    return { data, dtype: 'f32' as const };
  });
  const held = { k, v, kvHeads: KV_HEADS, headDim: HEAD_DIM };
  const query = { data: q.data, dtype: 'f32' as const };
  return Array.from({ length: HEADS }, (_, head) => {
    const kvHead = Math.floor((head * KV_HEADS) / HEADS);
    return [...attendRow(query, head * HEAD_DIM, held, kvHead, keys)];
  }).flat();
}
