/**
 * 10,000 decode steps through a windowed cache that wraps many times: heap and resident memory must not grow.
 *
 *   npm run bench:steps           fails where a measure grows beyond its bar
 */
import { attention, backend, KvCache, Tensor } from '../lib';

const LAYERS = 4;
const HEADS = 8;
const KV_HEADS = 2;
const HEAD_DIM = 64;
const CAPACITY = 256;
const WINDOW = 128;
const SINK_TOKENS = 4;

const STEPS = 10_000;
/** Compilation and the growth of V8's young generation are over by then. */
const WARM_STEPS = 5_000;

/** A leak of one small object a step would be 160 kB. */
const BARS = { heapUsed: 100e3, external: 10e3, arrayBuffers: 10e3, rss: 2e6 } as const;
type Measure = keyof typeof BARS;

function prepare(): () => void {
  const cache = new KvCache({
    layers: LAYERS,
    kvHeads: KV_HEADS,
    headDim: HEAD_DIM,
    capacity: CAPACITY,
    dtype: 'f16',
    window: WINDOW,
    sinkTokens: SINK_TOKENS,
  });
  const sequence = cache.sequence();
  const kv = Tensor.view(
    Float32Array.from({ length: KV_HEADS * HEAD_DIM }, (_, i) => Math.sin(i)),
    [1, KV_HEADS, HEAD_DIM],
  );
  const q = Tensor.view(
    Float32Array.from({ length: HEADS * HEAD_DIM }, (_, i) => Math.cos(i)),
    [1, 1, HEADS, HEAD_DIM],
  );
  const out = Tensor.zeros([1, 1, HEADS, HEAD_DIM]);
  return () => {
    for (let layer = 0; layer < LAYERS; layer++) {
      sequence.append(layer, kv, kv);
      attention(q, sequence.layer(layer), { out });
    }
  };
}

function memory(): Record<Measure, number> {
  if (globalThis.gc === undefined) throw new Error('run with node --expose-gc');
  // Twice: the first run may leave finalizers for the second.
  globalThis.gc();
  globalThis.gc();
  const { heapUsed, external, arrayBuffers, rss } = process.memoryUsage();
  return { heapUsed, external, arrayBuffers, rss };
}

function main(): void {
  const step = prepare();
  for (let i = 0; i < WARM_STEPS; i++) step();
  const before = memory();
  for (let i = 0; i < STEPS; i++) step();
  const after = memory();

  const { kind, isa } = backend();
  console.log(`${STEPS} decode steps of ${LAYERS} layers, window ${WINDOW}: ${kind} ${isa}`);
  let flat = true;
  for (const [measure, bar] of Object.entries(BARS) as [Measure, number][]) {
    const grown = after[measure] - before[measure];
    flat &&= grown <= bar;
    const kilobytes = (bytes: number) => (bytes / 1e3).toFixed(1);
    console.log(
      `${measure}: ${kilobytes(before[measure])} kB, grown ${kilobytes(grown)} kB ` +
        `(bar ${kilobytes(bar)} kB)${grown <= bar ? '' : '  FAILED'}`,
    );
  }
  process.exitCode = flat ? 0 : 1;
}

main();
