/** A result depends on the inputs alone: not on threads, not on sync or async, not on what ran before or beside it. */
import {
  attention,
  attentionAsync,
  KvCache,
  mergeAttention,
  Tensor,
  type AttentionFeatures,
  type FloatDType,
} from '../../lib';
import { getBackend } from '../../lib/backend';
import { attentionOracle } from '../oracle';
import { attentionCase, attentionInputs, type AttentionCase } from '../support/attention-case';
import { printed } from '../support/child';
import { expectClose, expectSameBits, toNumbers } from '../support/compare';
import { Random } from '../support/random';
import { axis, samples } from '../support/samples';
import { normals, tensor, f32Tensor, type FloatTensor, type WithLse } from '../support/tensors';
import { MERGE } from '../tolerances';

const DTYPES = ['f32', 'f16', 'bf16'] as const;

const CASES: Partial<AttentionCase>[] = [
  { queryTokens: 1, keyTokens: 1500, kvHeads: 1, group: 5 },
  { queryTokens: 1, keyTokens: 700, kvHeads: 3, group: 1, window: 300, sinkTokens: 4 },
  { queryTokens: 3, keyTokens: 900, kvHeads: 2, group: 4, alibi: true, sinkLogits: true },
  { queryTokens: 130, keyTokens: 130, kvHeads: 2, group: 3, batch: 2 },
  {
    queryTokens: 70,
    keyTokens: 200,
    kvHeads: 1,
    group: 8,
    mask: 'random',
    bias: 'plain',
    softcap: 4,
  },
];

function run(c: AttentionCase): WithLse {
  const { q, k, v, options } = attentionInputs(c);
  return attention(q, k, v, { ...options, returnLse: true });
}

function same(what: string, a: WithLse, b: WithLse): void {
  expectSameBits(`out of ${what}`, a.out.data, b.out.data);
  expectSameBits(`lse of ${what}`, a.lse.data, b.lse.data);
}

describe.each(DTYPES)('%s', (dtype) => {
  const cases = CASES.map((c, i) =>
    attentionCase({ seed: i, dtype, causal: true, headDim: 24, valueDim: 24, ...c }),
  );

  test('async gives the bits of sync', async () => {
    for (const c of cases) {
      const { q, k, v, options } = attentionInputs(c);
      const result = await attentionAsync(q, k, v, { ...options, returnLse: true });
      same(JSON.stringify(c), result, run(c));
    }
  });

  test('many async calls at once give the bits of each alone', async () => {
    const alone = cases.map(run);
    const inputs = cases.map(attentionInputs);
    const rounds = [0, 1, 2].flatMap(() =>
      inputs.map(({ q, k, v, options }, i) =>
        // Inputs are copied: a tensor in use by a call is busy.
        attentionAsync(q.to(dtype), k.to(dtype), v.to(dtype), {
          ...copied(options),
          returnLse: true,
        }).then((r) => same(`case ${i}`, r, alone[i])),
      ),
    );
    // Sync calls beside them.
    cases.forEach((c, i) => same(`sync ${i}`, run(c), alone[i]));
    await Promise.all(rounds);
  });

  test('a batch element alone gives the same bits as in the batch', () => {
    const c = { ...cases[3], plane: { batch: false, heads: false } };
    const { q, k, v, options } = attentionInputs(c);
    const whole = attention(q, k, v, options);
    const part = (t: FloatTensor) => {
      const half = t.data.length / 2;
      return Tensor.view<FloatDType>(t.data.subarray(half), [1, ...t.shape.slice(1)], dtype);
    };
    const second = attention(part(q), part(k), part(v), options);
    expectSameBits('second of the batch', part(whole).data, second.data);
  });

  test('a merge of random partitions is the whole', () => {
    for (let seed = 0; seed < samples(20); seed++) {
      const random = new Random(seed);
      const c = attentionCase({
        seed,
        dtype,
        queryTokens: random.pick([1, 6]),
        keyTokens: 90,
        mask: 'random',
      });
      const { q, k, v, options, oracle } = attentionInputs(c);
      const owner = Array.from({ length: c.keyTokens }, () => random.int(0, 3));
      const parts = [0, 1, 2, 3].map((part) => {
        const mask = Uint8Array.from(options.mask!.data);
        mask.forEach((m, at) => (mask[at] = owner[at % c.keyTokens] === part ? m : 0));
        const shape = [1, 1, c.queryTokens, c.keyTokens];
        return attention(q, k, v, { mask: Tensor.view(mask, shape), returnLse: true });
      });
      const merged = mergeAttention(parts);
      const whole = attentionOracle(oracle);
      expectClose('out', toNumbers(merged.out.data, dtype), whole.out, MERGE[dtype]);
      expectClose('lse', toNumbers(merged.lse.data, 'f32'), whole.lse, MERGE.f32);
    }
  });
});

function copied(options: AttentionFeatures): AttentionFeatures {
  return Object.fromEntries(
    Object.entries(options).map(([name, value]) => [
      name,
      value instanceof Tensor ? value.to(value.dtype) : value,
    ]),
  );
}

test('the same bits for every thread count', () => {
  const backend = getBackend();
  const threads = backend.info.threads;
  const all = DTYPES.flatMap((dtype) =>
    CASES.map((c) => attentionCase({ dtype, causal: true, headDim: 24, ...c })),
  );
  const expected = all.map(run);
  try {
    for (let n = 1; n <= threads; n++) {
      backend.limitThreads(n);
      all.forEach((c, i) => same(`${n} threads, case ${i}`, run(c), expected[i]));
    }
  } finally {
    backend.limitThreads(threads);
  }
});

/** A hash of what a fresh process computes. */
const HASHES = `
  const { createHash } = require('node:crypto');
  const { attention, KvCache, Tensor } = gqa;
  const make = (dtype, ...shape) => Tensor.from(
    Array.from({ length: shape.reduce((a, b) => a * b) }, (_, i) => Math.sin(i * 0.7) * 2), shape, dtype);
  const hash = createHash('sha256');
  for (const dtype of ['f32', 'f16', 'bf16']) {
    for (const [Tq, Tk, kv, G, D] of [[1, 1500, 1, 5, 24], [1, 600, 3, 1, 64], [3, 900, 2, 4, 17], [130, 200, 2, 3, 32]]) {
      const [q, k, v] = [make(dtype, 1, Tq, kv * G, D), make(dtype, 1, Tk, kv, D), make(dtype, 1, Tk, kv, D)];
      hash.update(attention(q, k, v, { causal: true }).data);
      const sequence = new KvCache({ layers: 1, kvHeads: kv, headDim: D, capacity: Tk, dtype }).sequence();
      sequence.append(0, k, v);
      hash.update(attention(q, sequence.layer(0)).data);
    }
  }
  console.log(gqa.backend().threads, hash.digest('hex'));`;

test('the same bits in processes of 1 to 7 threads', () => {
  if (getBackend().info.kind === 'js') return;
  const counts = axis([1, 2, 3, 7]);
  const lines = counts.map((n) =>
    printed(HASHES, { GQA_THREADS: `${n}` })
      .trim()
      .split(' '),
  );
  expect(lines.map(([threads]) => Number(threads))).toEqual(counts);
  expect(new Set(lines.map(([, hash]) => hash)).size).toBe(1);
}, 120_000);

test('merging nothing visible gives zeros and LSE -Infinity', () => {
  const out = () => tensor(new Array(12).fill(0), [1, 3, 2, 2], 'f32');
  const lse = () => f32Tensor(new Array(6).fill(-Infinity), [1, 3, 2]);
  const merged = mergeAttention([0, 1].map(() => ({ out: out(), lse: lse() })));
  expect(Array.from(merged.out.data)).toEqual(new Array(12).fill(0));
  expect(Array.from(merged.lse.data)).toEqual(new Array(6).fill(-Infinity));
  // A part that saw nothing has nothing to say, whatever it holds.
  const garbage = tensor(new Array(12).fill(NaN), [1, 3, 2, 2], 'f32');
  const seen = tensor(new Array(12).fill(0.25), [1, 3, 2, 2], 'f32');
  const ones = f32Tensor(new Array(6).fill(1), [1, 3, 2]);
  const both = mergeAttention([
    { out: garbage, lse: lse() },
    { out: seen, lse: ones },
  ]);
  expect(Array.from(both.out.data)).toEqual(new Array(12).fill(0.25));
  expect(Array.from(both.lse.data)).toEqual(new Array(6).fill(1));
});

test('a split of a prompt into chunks stays within the tolerance, over the same cache', () => {
  const random = new Random(5);
  const [tokens, width] = [200, 32];
  const k = normals(random, tokens * width, 'f32');
  const v = normals(random, tokens * width, 'f32');
  const q = normals(random, tokens * 2 * width, 'f32');
  const outputs = [[200], [1, 199], [64, 64, 72], new Array(200).fill(1)].map((chunks) => {
    const cache = new KvCache({ layers: 1, kvHeads: 2, headDim: 16, capacity: 256, dtype: 'f32' });
    const sequence = cache.sequence();
    const out: number[] = [];
    let at = 0;
    for (const n of chunks) {
      const part = (x: number[], w: number) => x.slice(at * w, (at + n) * w);
      sequence.append(
        0,
        tensor(part(k, width), [n, 2, 16], 'f32'),
        tensor(part(v, width), [n, 2, 16], 'f32'),
      );
      const rows = tensor(part(q, 2 * width), [1, n, 4, 16], 'f32');
      out.push(...attention(rows, sequence.layer(0)).data);
      at += n;
    }
    return out;
  });
  for (const out of outputs) expectClose('chunks', out, outputs[0], 2e-6);
});
