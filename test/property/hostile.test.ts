/**
 * Arguments that no type checker has seen: every call either works or throws a GqaError, and never anything else; what
 * it refused is untouched.
 */
import fc from 'fast-check';
import { attention, attentionAsync, GqaError, KvCache, mergeAttention, Tensor } from '../../lib';
import { samples } from '../support/samples';

/** Anything, and often something nearly right. */
const anything: fc.Arbitrary<unknown> = fc.oneof(
  fc.constantFrom<unknown>(
    undefined,
    null,
    true,
    0,
    -0,
    1,
    -1,
    1.5,
    NaN,
    Infinity,
    -Infinity,
    2 ** 31,
    2 ** 32,
    2 ** 53,
    1e308,
    '',
    '1',
    'f32',
    [],
    [1],
    {},
    10n,
    Symbol('s'),
    () => 1,
    new Date(0),
    new Float32Array(4),
    new ArrayBuffer(8),
    new DataView(new ArrayBuffer(8)),
    new Proxy({}, {}),
    Object.create(null),
  ),
  fc.anything(),
);

const sizes = fc.array(fc.constantFrom(0, 1, 1, 2, 2, 4, 8, 3), { minLength: 1, maxLength: 5 });
const dtypes = fc.constantFrom('f32', 'f16', 'bf16', 'i8', 'u8', 'i32');
const tensors: fc.Arbitrary<unknown> = fc.oneof(
  {
    weight: 8,
    arbitrary: fc.tuple(sizes, dtypes).map(([shape, dtype]) => Tensor.zeros(shape, dtype as 'f32')),
  },
  {
    weight: 30,
    arbitrary: fc
      .constantFrom('f32', 'f32', 'f32', 'f32', 'f16', 'bf16')
      .map((dtype) => Tensor.zeros([1, 2, 2, 4], dtype as 'f32')),
  },
  { weight: 2, arbitrary: anything },
  {
    weight: 1,
    arbitrary: fc.constant(0).map(() => {
      const t = Tensor.zeros([1, 2, 2, 4]);
      t.dispose();
      return t;
    }),
  },
);

const mostly = (good: fc.Arbitrary<unknown>) =>
  fc.oneof({ weight: 15, arbitrary: good }, { weight: 1, arbitrary: anything });
const options: fc.Arbitrary<unknown> = fc.oneof(
  fc.constant(undefined),
  fc.record(
    {
      causal: mostly(fc.boolean()),
      window: mostly(fc.integer({ min: 1, max: 5 })),
      sinkTokens: mostly(fc.nat({ max: 3 })),
      mask: mostly(
        fc.constantFrom(Tensor.zeros([1, 1, 2, 2], 'u8'), Tensor.zeros([1, 2, 2, 2], 'u8')),
      ),
      bias: mostly(fc.constantFrom(Tensor.zeros([1, 1, 2, 2]), Tensor.zeros([1, 2, 2, 2]))),
      alibiSlopes: mostly(fc.constant(Tensor.zeros([2]))),
      sinkLogits: mostly(fc.constant(Tensor.zeros([2]))),
      scale: mostly(fc.double({ noNaN: true, min: -2, max: 2 })),
      softcap: mostly(fc.constantFrom(0, 1, 50)),
      out: mostly(fc.constant(0).map(() => Tensor.zeros([1, 2, 2, 4]))),
      returnLse: mostly(fc.boolean()),
      dropout: mostly(fc.constant({ probability: 0.5, seed: 1 })),
    },
    { requiredKeys: [] },
  ),
  mostly(fc.constant({})),
);

/** True where it worked, false where it was refused as it should be. */
async function worksOrIsRefused(action: () => unknown): Promise<boolean> {
  try {
    await action();
    return true;
  } catch (error) {
    if (!(error instanceof GqaError)) throw error;
    expect(error.message).not.toBe('');
    expect(error.code).not.toBe('INTERNAL');
    return false;
  }
}

async function survives<T>(property: fc.IAsyncProperty<T>, runs: number): Promise<void> {
  await fc.assert(property, { numRuns: samples(runs), seed: 4711 });
}

test('attention', async () => {
  let worked = 0;
  const property = fc.asyncProperty(tensors, tensors, tensors, options, async (q, k, v, o) => {
    if (await worksOrIsRefused(() => attention(q as never, k as never, v as never, o as never)))
      worked++;
  });
  await survives(property, 3000);
  // Not everything was refused.
  expect(worked).toBeGreaterThan(samples(200));
});

test('attentionAsync', async () => {
  const property = fc.asyncProperty(tensors, tensors, tensors, options, async (q, k, v, o) => {
    await worksOrIsRefused(() => attentionAsync(q as never, k as never, v as never, o as never));
  });
  await survives(property, 800);
});

test('mergeAttention', async () => {
  const part = fc.oneof(
    fc.record({ out: tensors, lse: fc.oneof(tensors, fc.constant(Tensor.zeros([1, 2, 2]))) }),
    anything,
  );
  const property = fc.asyncProperty(
    fc.oneof(fc.array(part, { maxLength: 3 }), anything),
    async (parts) => {
      await worksOrIsRefused(() => mergeAttention(parts as never));
    },
  );
  await survives(property, 1000);
});

test('Tensor', async () => {
  const shape = fc.oneof(sizes, fc.array(anything, { maxLength: 3 }), anything);
  const values = fc.oneof(
    fc.array(fc.double(), { maxLength: 8 }),
    fc.array(anything, { maxLength: 4 }),
    anything,
  );
  const dtype = fc.oneof(dtypes, anything);
  const property = fc.asyncProperty(values, shape, dtype, async (v, s, d) => {
    await worksOrIsRefused(() => Tensor.from(v as never, s as never, d as never));
    await worksOrIsRefused(() => Tensor.view(v as never, s as never, d as never));
    await worksOrIsRefused(() => Tensor.zeros([3]).reshape(s as never));
    await worksOrIsRefused(() => Tensor.zeros([3]).to(d as never));
  });
  await survives(property, 3000);
});

test('KvCache and its sequences', async () => {
  const cacheOptions = fc.oneof(
    fc.record(
      {
        layers: mostly(fc.constantFrom(1, 2)),
        kvHeads: mostly(fc.constantFrom(1, 2)),
        headDim: mostly(fc.constantFrom(1, 4)),
        capacity: mostly(fc.constantFrom(1, 8, 70)),
        dtype: mostly(fc.constantFrom('f32', 'f16', 'bf16')),
        valueDim: mostly(fc.constantFrom(1, 4)),
        window: mostly(fc.constantFrom(1, 4, Infinity)),
        sinkTokens: mostly(fc.constantFrom(0, 2)),
        slack: mostly(fc.constantFrom(0, 2)),
        sequences: mostly(fc.constantFrom(1, 2)),
      },
      { requiredKeys: [] },
    ),
    anything,
  );
  const cacheable: fc.Arbitrary<unknown> = fc.oneof(
    fc.constantFrom(1, 2, 9).map((tokens) => Tensor.zeros([tokens, 2, 4])),
    tensors,
  );
  const property = fc.asyncProperty(
    cacheOptions,
    fc.array(fc.tuple(mostly(fc.nat({ max: 2 })), cacheable, cacheable), { maxLength: 4 }),
    anything,
    tensors,
    options,
    async (o, appends, length, q, attentionOptions) => {
      let cache: KvCache | undefined;
      await worksOrIsRefused(() => (cache = new KvCache(o as never)));
      if (cache === undefined) return;
      const sequence = cache.sequence();
      for (const [layer, k, v] of appends) {
        await worksOrIsRefused(() => sequence.append(layer as never, k as never, v as never));
      }
      await worksOrIsRefused(() =>
        attention(q as never, sequence.layer(0), attentionOptions as never),
      );
      await worksOrIsRefused(() => attention(q as never, sequence.layer(length as never)));
      await worksOrIsRefused(() => sequence.truncate(length as never));
      expect(sequence.length).toBeGreaterThanOrEqual(0);
      cache.dispose();
    },
  );
  await survives(property, 1500);
});
