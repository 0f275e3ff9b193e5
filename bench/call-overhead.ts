/**
 * What a decode call costs apart from its work: 1 token, 2/1 heads of 8, context 8, f32 cache, `out` given, one thread.
 *
 *   npm run bench:overhead        fails at a median of 2 microseconds or more
 */
import { attention, backend, KvCache, Tensor } from '../lib';

const BAR_MICROSECONDS = 2;
/** Calls are timed in batches: one alone is not far above the clock's resolution. */
const BATCH_CALLS = 100;
const BATCHES = 1000;
const WARM_CALLS = 50_000;

const HEADS = 2;
const KV_HEADS = 1;
const HEAD_DIM = 8;
const CONTEXT = 8;

function prepare(): () => void {
  const cache = new KvCache({
    layers: 1,
    kvHeads: KV_HEADS,
    headDim: HEAD_DIM,
    capacity: CONTEXT,
    dtype: 'f32',
  });
  const sequence = cache.sequence();
  const rows = (tokens: number, heads: number) =>
    Float32Array.from({ length: tokens * heads * HEAD_DIM }, (_, i) => Math.sin(i));
  const kv = Tensor.view(rows(CONTEXT, KV_HEADS), [CONTEXT, KV_HEADS, HEAD_DIM]);
  sequence.append(0, kv, kv);
  const q = Tensor.view(rows(1, HEADS), [1, 1, HEADS, HEAD_DIM]);
  const out = Tensor.zeros([1, 1, HEADS, HEAD_DIM]);
  return () => {
    attention(q, sequence.layer(0), { out });
  };
}

function main(): void {
  process.env.GQA_THREADS = '1';
  const call = prepare();
  for (let i = 0; i < WARM_CALLS; i++) call();

  const microseconds = new Float64Array(BATCHES);
  for (let batch = 0; batch < BATCHES; batch++) {
    const start = process.hrtime.bigint();
    for (let i = 0; i < BATCH_CALLS; i++) call();
    microseconds[batch] = Number(process.hrtime.bigint() - start) / 1e3 / BATCH_CALLS;
  }
  microseconds.sort();
  const at = (p: number) => microseconds[Math.floor((BATCHES - 1) * p)].toFixed(3);
  const { kind, isa, threads } = backend();
  console.log(`decode call, 2/1 heads of 8, context 8, f32: ${kind} ${isa}, ${threads} thread`);
  console.log(
    `median ${at(0.5)} µs of ${BATCHES * BATCH_CALLS} calls in batches of ${BATCH_CALLS} ` +
      `(p10 ${at(0.1)}, p90 ${at(0.9)}); bar < ${BAR_MICROSECONDS} µs`,
  );
  if (threads !== 1) throw new Error('GQA_THREADS=1 was not taken');
  process.exitCode = microseconds[(BATCHES - 1) >> 1] < BAR_MICROSECONDS ? 0 : 1;
}

main();
