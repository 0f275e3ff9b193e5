/**
 * Every method of every handle in every state that refuses it: disposed, busy in an async call, its memory transferred
 * away. The refusal names the argument, nothing is written, and what was busy works again afterwards.
 */
import {
  attention,
  attentionAsync,
  GroupedQueryAttention,
  KvCache,
  Linear,
  mergeAttention,
  Tensor,
  type GqaErrorCode,
  type KvSequence,
} from '../../lib';
import { expectRefused } from '../support/refusals';

/** Fresh handles for one attention call with every option; nothing shares memory. */
class Handles {
  readonly shape = [1, 2, 2, 4];
  q = filled(this.shape);
  k = filled(this.shape);
  v = filled(this.shape);
  mask = Tensor.from(new Array(4).fill(1), [1, 1, 2, 2], 'u8');
  bias = filled([1, 1, 2, 2]);
  alibiSlopes = filled([2]);
  sinkLogits = filled([2]);
  out = filled(this.shape);
  lse = filled([1, 2, 2]);
  cache = new KvCache({ layers: 1, kvHeads: 2, headDim: 4, capacity: 8, sequences: 2 });
  sequence: KvSequence = this.cache.sequence();
  layer = this.sequence.layer(0);
  k3 = filled([2, 2, 4]);
  v3 = filled([2, 2, 4]);

  constructor() {
    this.sequence.append(0, this.k3, this.v3);
  }

  options() {
    const { mask, bias, alibiSlopes, sinkLogits, out } = this;
    return { mask, bias, alibiSlopes, sinkLogits, out };
  }
}

function filled(shape: number[]): Tensor<'f32'> {
  const count = shape.reduce((a, b) => a * b, 1);
  return Tensor.view(new Float32Array(count).fill(0.5), shape);
}

type TensorName =
  'q' | 'k' | 'v' | 'mask' | 'bias' | 'alibiSlopes' | 'sinkLogits' | 'out' | 'lse' | 'k3' | 'v3';

/** Of each tensor: what uses it, and what the argument is called there. */
const TENSOR_USES: [string, TensorName, string, (h: Handles) => unknown][] = [
  ...(['q', 'k', 'v'] as const).flatMap(
    (name): [string, TensorName, string, (h: Handles) => unknown][] => [
      ['attention', name, name, (h) => attention(h.q, h.k, h.v, h.options())],
      ['attentionAsync', name, name, (h) => attentionAsync(h.q, h.k, h.v, h.options())],
    ],
  ),
  ...(['mask', 'bias', 'alibiSlopes', 'sinkLogits', 'out'] as const).flatMap(
    (name): [string, TensorName, string, (h: Handles) => unknown][] => [
      ['attention', name, `options.${name}`, (h) => attention(h.q, h.k, h.v, h.options())],
      [
        'attentionAsync',
        name,
        `options.${name}`,
        (h) => attentionAsync(h.q, h.k, h.v, h.options()),
      ],
    ],
  ),
  ['attention over a cache', 'q', 'q', (h) => attention(h.q, h.layer)],
  ['attentionAsync over a cache', 'q', 'q', (h) => attentionAsync(h.q, h.layer)],
  ['mergeAttention', 'out', 'parts[0].out', (h) => mergeAttention([{ out: h.out, lse: h.lse }])],
  ['mergeAttention', 'lse', 'parts[0].lse', (h) => mergeAttention([{ out: h.out, lse: h.lse }])],
  ['sequence.append', 'k3', 'k', (h) => h.sequence.append(0, h.k3, h.v3)],
  ['sequence.append', 'v3', 'v', (h) => h.sequence.append(0, h.k3, h.v3)],
  ['tensor.to', 'q', 'tensor', (h) => h.q.to('f16')],
  ['tensor.to the same dtype', 'q', 'tensor', (h) => h.q.to('f32')],
  ['tensor.toFloat32', 'q', 'tensor', (h) => h.q.toFloat32()],
];
const TENSOR_STATE_USES: typeof TENSOR_USES = [
  ['tensor.data', 'q', 'tensor', (h) => h.q.data],
  ['tensor.reshape', 'q', 'tensor', (h) => h.q.reshape([16])],
];

/** Everything that lives on, to see that a refused call wrote nothing. */
function contents(h: Handles): string {
  const read = (t: Tensor) => (t.storage.state === 0 ? Array.from(t.data).join() : 'refused');
  return [h.q, h.k, h.v, h.out, h.lse, h.bias, h.mask]
    .map(read)
    .concat(`${h.sequence.length}`)
    .join(';');
}

async function expectUntouched(
  h: Handles,
  code: GqaErrorCode,
  argument: string,
  use: (h: Handles) => unknown,
) {
  const before = contents(h);
  await expectRefused(code, argument, () => use(h));
  expect(contents(h)).toBe(before);
}

test.each([...TENSOR_USES, ...TENSOR_STATE_USES])(
  '%s refuses a disposed %s',
  async (_, name, argument, use) => {
    const h = new Handles();
    h[name].dispose();
    await expectUntouched(h, 'DISPOSED', argument, use);
    h[name].dispose();
  },
);

test.each(TENSOR_USES)(
  '%s refuses a %s whose memory was transferred',
  async (_, name, argument, use) => {
    const h = new Handles();
    structuredClone(h[name].data.buffer, { transfer: [h[name].data.buffer as ArrayBuffer] });
    await expectRefused('BUFFER_DETACHED', argument, () => use(h));
  },
);

test.each([...TENSOR_USES, ...TENSOR_STATE_USES])(
  '%s refuses a busy %s',
  async (_, name, argument, use) => {
    const h = new Handles();
    // A call that uses the tensor as what it is able to be.
    const rows = h[name].size / 4;
    const busy =
      h[name].dtype === 'u8'
        ? attentionAsync(filled(h.shape), filled(h.shape), filled(h.shape), { mask: h.mask })
        : h[name].shape.length === 1
          ? attentionAsync(filled(h.shape), filled(h.shape), filled(h.shape), { [name]: h[name] })
          : rows >= 1
            ? attentionAsync(reshaped(h[name], rows), filled([1, 2, 1, 4]), filled([1, 2, 1, 4]))
            : Promise.reject(new Error(`${name} is too small`));
    // Both at once: on the JavaScript backend a small call has settled after an await.
    await Promise.all([
      expectRefused('BUSY', argument, () => use(h)),
      expectRefused('BUSY', 'tensor', () => h[name].dispose()),
    ]);
    await busy;
    await use(h);
  },
);

/** The same memory as a query of `rows` heads. */
function reshaped(t: Tensor, rows: number): Tensor<'f32'> {
  return t.reshape([1, 1, rows, 4]) as Tensor<'f32'>;
}

test('a reshaped tensor shares life and business with its origin', async () => {
  const t = filled([2, 8]);
  const twin = t.reshape([1, 2, 2, 4]);
  const busy = attentionAsync(twin, filled([1, 2, 2, 4]), filled([1, 2, 2, 4]));
  await expectRefused('BUSY', 'tensor', () => t.toFloat32());
  await busy;
  t.dispose();
  await expectRefused('DISPOSED', 'q', () =>
    attention(twin, filled([1, 2, 2, 4]), filled([1, 2, 2, 4])),
  );
});

const CACHE_USES: [string, (h: Handles) => unknown][] = [
  ['sequence.append', (h) => h.sequence.append(0, h.k3, h.v3)],
  ['sequence.layer', (h) => h.sequence.layer(0)],
  ['sequence.truncate', (h) => h.sequence.truncate(1)],
  ['attention', (h) => attention(h.q, h.layer)],
  ['attentionAsync', (h) => attentionAsync(h.q, h.layer)],
];

describe('a cache', () => {
  test.each([...CACHE_USES, ['cache.sequence', (h: Handles) => h.cache.sequence()] as const])(
    '%s refuses a disposed one',
    async (_, use) => {
      const h = new Handles();
      h.cache.dispose();
      await expectRefused('DISPOSED', /^(cache|sequence|layer)$/, () => use(h));
      h.cache.dispose();
      h.sequence.dispose();
      expect(h.cache.bytes).toBe(0);
    },
  );

  test.each(CACHE_USES)('%s refuses a disposed sequence', async (_, use) => {
    const h = new Handles();
    h.sequence.dispose();
    await expectRefused('DISPOSED', /^(sequence|layer)$/, () => use(h));
    h.sequence.dispose();
    // The place is free, and the other sequence is empty.
    const other = h.cache.sequence();
    expect(other.length).toBe(0);
    other.append(0, h.k3, h.v3);
  });

  test.each([
    ...CACHE_USES.slice(0, 3),
    ['cache.sequence', (h: Handles) => h.cache.sequence()] as const,
    ['cache.dispose', (h: Handles) => h.cache.dispose()] as const,
    ['sequence.dispose', (h: Handles) => h.sequence.dispose()] as const,
    ['attention', (h: Handles) => attention(filled(h.shape), h.layer)] as const,
    ['attentionAsync', (h: Handles) => attentionAsync(filled(h.shape), h.layer)] as const,
    [
      'append to another sequence',
      (h: Handles) => h.cache.sequence().append(0, h.k3, h.v3),
    ] as const,
  ])('%s refuses a busy one', async (_, use) => {
    const h = new Handles();
    const busy = attentionAsync(h.q, h.layer);
    await expectRefused('BUSY', /^(cache|sequence|layer)$/, () => use(h));
    expect(h.sequence.length).toBe(2);
    await busy;
    await use(h);
  });
});

describe('what a call held is free again', () => {
  test('after it was aborted before it began', async () => {
    const h = new Handles();
    const reason = new Error('too late');
    const signal = AbortSignal.abort(reason);
    await expect(attentionAsync(h.q, h.k, h.v, { ...h.options(), signal })).rejects.toBe(reason);
    expect(Array.from(h.out.data)).toEqual(new Array(16).fill(0.5));
    attention(h.q, h.k, h.v, h.options());
  });

  test('after it was aborted on its way', async () => {
    const shape = [1, 600, 2, 64];
    const [q, k, v] = [filled(shape), filled(shape), filled(shape)];
    for (let n = 0; n < 5; n++) {
      const controller = new AbortController();
      const call = attentionAsync(q, k, v, { signal: controller.signal });
      setTimeout(() => controller.abort(), n);
      await call.then(
        (result) => expect(result.shape).toEqual(shape),
        (error: Error) => expect(error.name).toBe('AbortError'),
      );
      expect(attention(q, k, v).shape).toEqual(shape);
    }
  });

  test('after it was refused', async () => {
    const h = new Handles();
    h.v.dispose();
    await expectRefused('DISPOSED', 'v', () => attentionAsync(h.q, h.k, h.v, h.options()));
    attention(h.q, h.k, filled(h.shape), h.options());
  });
});

describe('modules', () => {
  const x = () => filled([1, 3, 8]);
  const module = () => new GroupedQueryAttention({ dModel: 8, heads: 2, kvHeads: 1 });

  test('GroupedQueryAttention refuses after dispose, and disposed or busy inputs', async () => {
    const attn = module();
    const input = x();
    expect(attn.forward(input).shape).toEqual([1, 3, 8]);
    const busy = attentionAsync(
      input.reshape([1, 3, 2, 4]),
      filled([1, 1, 1, 4]),
      filled([1, 1, 1, 4]),
    );
    await expectRefused('BUSY', 'x', () => attn.forward(input));
    await busy;
    input.dispose();
    await expectRefused('DISPOSED', 'x', () => attn.forward(input));
    attn.dispose();
    attn.dispose();
    await expectRefused('DISPOSED', /./, () => attn.forward(x()));
  });

  test('Linear refuses after dispose', async () => {
    const linear = new Linear({ data: new Float32Array(32), shape: [4, 8], dtype: 'f32' });
    linear.dispose();
    linear.dispose();
    await expectRefused('DISPOSED', /./, () => linear.forward(filled([2, 8])));
  });
});
