/** Memory of a cache: what dispose() gives back, and arenas whose offsets need more than 32 bits. */
import { attention, KvCache, Tensor } from '../../lib';
import { attendRow, relativeError, toleranceOf } from '../../lib/cli/bench/oracle';

const KV_HEADS = 2;
const HEAD_DIM = 128;
const WIDTH = KV_HEADS * HEAD_DIM;
/** Share of the memory that must be back. */
const BAR = 0.95;
const TOKENS = 200;

export function memory(): boolean {
  return [disposed(), beyond4GiB()].every(Boolean);
}

/** Fills a cache of about a gigabyte, and disposes it. */
function disposed(): boolean {
  const capacity = 2 ** 19;
  const before = process.memoryUsage.rss();
  const cache = new KvCache({
    layers: 2,
    kvHeads: KV_HEADS,
    headDim: HEAD_DIM,
    capacity,
    dtype: 'bf16',
  });
  const { bytes } = cache;
  const sequence = cache.sequence();
  const rows = Tensor.zeros([4096, KV_HEADS, HEAD_DIM]);
  while (sequence.length < capacity) {
    for (let layer = 0; layer < 2; layer++) sequence.append(layer, rows, rows);
  }
  const full = process.memoryUsage.rss();
  cache.dispose();
  const after = process.memoryUsage.rss();
  const megabytes = (n: number): string => `${(n / 1e6).toFixed(0)} MB`;
  console.log(
    `cache of ${megabytes(bytes)}: resident ${megabytes(before)}, filled ${megabytes(full)}, disposed ${megabytes(after)}`,
  );
  return full - before > BAR * bytes && full - after > BAR * bytes;
}

/** An arena of which only what is written is ever backed by memory: a head's blocks lie gigabytes apart. */
function beyond4GiB(): boolean {
  const capacity = 2 ** 23;
  const cache = new KvCache({ layers: 1, kvHeads: KV_HEADS, headDim: HEAD_DIM, capacity });
  const sequence = cache.sequence();
  const data = Float32Array.from({ length: TOKENS * WIDTH }, (_, i) => Math.sin(i * i));
  const rows = Tensor.view(data, [TOKENS, KV_HEADS, HEAD_DIM]);
  sequence.append(0, rows, rows);
  const q = Tensor.view(data.slice(0, WIDTH), [1, 1, KV_HEADS, HEAD_DIM]);
  const out = attention(q, sequence.layer(0));
  const held = { data, dtype: 'f32' as const };
  const source = { k: held, v: held, kvHeads: KV_HEADS, headDim: HEAD_DIM };
  const query = { data: q.data, dtype: 'f32' as const };
  const expected = [0, 1].flatMap((head) => [
    ...attendRow(query, head * HEAD_DIM, source, head, TOKENS),
  ]);
  const error = relativeError(expected, out.data);
  console.log(
    `arena of ${(cache.bytes / 2 ** 30).toFixed(0)} GiB, ${process.memoryUsage.rss() >> 20} MiB resident: error ${error.toExponential(1)}`,
  );
  cache.dispose();
  return error <= toleranceOf('f32', 'exact');
}
