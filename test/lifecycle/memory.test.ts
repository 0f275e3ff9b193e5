/** What is used again and again must not grow: heap, external memory and RSS of a child process, before and after. */
import { printed } from '../support/child';
import { skipped } from '../support/package';

const PREPARE = `
const { Tensor, KvCache, attention, attentionAsync } = gqa;
const make = (...shape) => Tensor.view(new Float32Array(shape.reduce((a, b) => a * b)).fill(0.1), shape);
`;

/**
 * Growth of heap, RSS and external bytes over `rounds` runs of `step`, after a warm-up as long: the least of three
 * windows, because a leak grows in each, the engine's own code and feedback in one or the other.
 */
function growth(
  setup: string,
  step: string,
  rounds: number,
): { heap: number; rss: number; external: number } {
  const text = printed(`
    ${PREPARE}
    ${setup}
    const once = () => { ${step} };
    const measure = () => { gc(); gc(); return process.memoryUsage(); };
    for (let i = 0; i < ${rounds}; i++) once();
    const seen = [measure()];
    for (let window = 0; window < 3; window++) {
      for (let i = 0; i < ${rounds}; i++) once();
      seen.push(measure());
    }
    const grown = (name) => Math.min(...[1, 2, 3].map((i) => seen[i][name] - seen[i - 1][name]));
    console.log(JSON.stringify({ heap: grown('heapUsed'), rss: grown('rss'), external: grown('external') }));`);
  return JSON.parse(text.trim().split('\n').at(-1)!) as {
    heap: number;
    rss: number;
    external: number;
  };
}

const MiB = 2 ** 20;

// A sanitizer keeps freed memory for a while.
const measured =
  process.env.ASAN_OPTIONS === undefined ? test : skipped('memory growth, under a sanitizer');

measured('10,000 decode steps over a ring grow nothing', () => {
  const grown = growth(
    `const cache = new KvCache({ layers: 1, kvHeads: 1, headDim: 8, capacity: 64, window: 32 });
     const sequence = cache.sequence();
     const [row, key, out] = [make(1, 1, 2, 8), make(1, 1, 8), make(1, 1, 2, 8)];`,
    `sequence.append(0, key, key); attention(row, sequence.layer(0), { out });`,
    10_000,
  );
  expect(grown.heap).toBeLessThan(0.25 * MiB);
  expect(grown.external).toBeLessThan(0.25 * MiB);
  expect(grown.rss).toBeLessThan(8 * MiB);
});

const NEW_CACHE = 'new KvCache({ layers: 1, kvHeads: 1, headDim: 64, capacity: 4096 })';

// Each holds 2 MiB: 200 that stayed would be 400.
measured.each([
  ['caches that are disposed', `const cache = ${NEW_CACHE}; cache.sequence(); cache.dispose();`],
  ['caches that are only dropped', `${NEW_CACHE}.sequence(); if (++count % 10 === 0) gc();`],
  [
    'linear layers that are disposed',
    `new gqa.Linear({ data: weight, shape: [512, 1024], dtype: 'f32' }).dispose();`,
  ],
])('%s give their memory back', (_, step) => {
  const grown = growth('let count = 0; const weight = new Float32Array(512 * 1024);', step, 200);
  expect(grown.rss).toBeLessThan(80 * MiB);
  expect(grown.heap).toBeLessThan(2 * MiB);
});

measured.each(['f32', 'q8'])('nothing of a used %s cache stays when it is disposed', (dtype) => {
  const text = printed(`
    ${PREPARE}
    const used = () => { gc(); gc(); return process.memoryUsage().arrayBuffers; };
    const before = used();
    (() => {
      const cache = new KvCache({ layers: 1, kvHeads: 8, headDim: 128, capacity: 4096, dtype: '${dtype}' });
      const sequence = cache.sequence();
      sequence.append(0, make(100, 8, 128), make(100, 8, 128));
      attention(make(1, 1, 8, 128), sequence.layer(0));
      sequence.truncate(30);
      sequence.snapshot();
      cache.dispose();
    })();
    console.log(used() - before);`);
  // A block on its way is 64 KiB; the cache was 8 MiB and more.
  expect(Number(text.trim().split('\n').at(-1))).toBeLessThan(MiB);
});

measured('2,000 async calls leave nothing behind', () => {
  const text = printed(`
    ${PREPARE}
    const [a, b] = [make(1, 1, 2, 8), make(1, 16, 2, 8)];
    const rounds = async () => { for (let i = 0; i < 2000; i++) await attentionAsync(a, b, b); gc(); gc(); };
    const used = () => { const { heapUsed, rss } = process.memoryUsage(); return { heapUsed, rss }; };
    rounds().then(async () => {
      const before = used();
      await rounds();
      const after = used();
      console.log(JSON.stringify({ heap: after.heapUsed - before.heapUsed, rss: after.rss - before.rss }));
    });`);
  const grown = JSON.parse(text) as { heap: number; rss: number };
  expect(grown.heap).toBeLessThan(0.25 * MiB);
  expect(grown.rss).toBeLessThan(16 * MiB);
});
