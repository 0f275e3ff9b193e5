/** attentionAsync: the same result, busy handles, cancellation; and the refusals of mergeAttention. */
import { attention, attentionAsync, backend, GqaError, mergeAttention, Tensor } from '../../../lib';
import type { AttentionWithLse } from '../../../lib';
import { getBackend } from '../../../lib/backend';
import { errorOf, rejectionOf } from '../refusals';

const ramp = (shape: number[]) => {
  const size = shape.reduce((a, b) => a * b, 1);
  return Tensor.from(
    Array.from({ length: size }, (_, i) => Math.sin(i)),
    shape,
  );
};
const loose = attentionAsync as unknown as (...args: unknown[]) => Promise<unknown>;

function inputs(tokens = 9) {
  return {
    q: ramp([1, tokens, 4, 8]),
    k: ramp([1, tokens, 2, 8]),
    v: ramp([1, tokens, 2, 8]),
    bias: ramp([1, 1, tokens, tokens]),
    sinkLogits: ramp([4]),
    out: ramp([1, tokens, 4, 8]),
  };
}

test('gives what attention gives', async () => {
  const { q, k, v, bias, sinkLogits } = inputs();
  const options = { bias, sinkLogits, causal: true, returnLse: true } as const;
  const { out, lse } = await attentionAsync(q, k, v, options);
  const expected = attention(q, k, v, options);
  expect(out.data).toEqual(expected.out.data);
  expect(lse.data).toEqual(expected.lse.data);
});

test('every tensor is busy until it settles', async () => {
  const { q, k, v, bias, sinkLogits, out } = inputs();
  const held = { q, k, v, bias, sinkLogits, out };
  const reshaped = k.reshape([9, 16]);
  const running = attentionAsync(q, k, v, { bias, sinkLogits, out });
  for (const tensor of [...Object.values(held), reshaped]) {
    expect(errorOf(() => tensor.data)).toBe('BUSY tensor');
    expect(errorOf(() => tensor.toFloat32())).toBe('BUSY tensor');
    expect(errorOf(() => tensor.reshape([tensor.size]))).toBe('BUSY tensor');
    expect(errorOf(() => tensor.dispose())).toBe('BUSY tensor');
  }
  expect(errorOf(() => attention(q, k, v))).toBe('BUSY q');
  expect(await rejectionOf(attentionAsync(ramp([1, 9, 4, 8]), k, v))).toBe('BUSY k');
  expect(await running).toBe(out);
  for (const tensor of Object.values(held)) tensor.dispose();
});

test('the memory stays while the call reads it', async () => {
  const { q, k, v } = inputs(60);
  const keys = k.data;
  const running = attentionAsync(q, k, v);
  try {
    // Some versions of Node copy what may not be transferred, others throw.
    structuredClone(keys.buffer, { transfer: [keys.buffer as ArrayBuffer] });
  } catch (error) {
    expect((error as Error).name).toBe('DataCloneError');
  }
  expect(keys.length).toBe(k.size);
  await running;
  attention(q, k, v);
});

test('memory that could shrink is refused', async () => {
  const { q, k, v } = inputs();
  const Buffers = ArrayBuffer as unknown as new (n: number, o: object) => ArrayBuffer;
  const values = new Float32Array(new Buffers(v.byteLength, { maxByteLength: v.byteLength }));
  const resizable = Tensor.view(values, v.shape);
  expect(await rejectionOf(attentionAsync(q, k, resizable))).toBe('INVALID_ARGUMENT v');
  attention(q, k, resizable);
});

test('one tensor may be given more than once', async () => {
  const x = ramp([1, 9, 2, 8]);
  await attentionAsync(x, x, x);
  x.dispose();
});

test('rejects bad arguments and leaves the handles idle', async () => {
  const { q, k, v } = inputs();
  expect(await rejectionOf(attentionAsync(q, k, v, { window: 0 }))).toBe(
    'OUT_OF_RANGE options.window',
  );
  for (const signal of [null, {}, 'stop']) {
    const rejection = await rejectionOf(loose(q, k, v, { signal }));
    expect(rejection).toBe('INVALID_ARGUMENT options.signal');
  }
  attention(q, k, v);
});

describe('an abort', () => {
  test('before the call rejects with the reason, nothing written', async () => {
    const { q, k, v, out } = inputs();
    const before = [...out.data];
    const signal = AbortSignal.abort(new Error('no'));
    await expect(attentionAsync(q, k, v, { signal, out })).rejects.toBe(signal.reason);
    expect([...out.data]).toEqual(before);
  });

  test('during the call rejects with the reason once the tensors are free', async () => {
    const { q, k, v } = inputs(60);
    const controller = new AbortController();
    const running = attentionAsync(q, k, v, { signal: controller.signal });
    controller.abort('enough');
    await expect(running).rejects.toBe('enough');
    attention(q, k, v);
  });

  test('of another call, or after it, changes nothing', async () => {
    const { q, k, v } = inputs();
    const controller = new AbortController();
    const result = await attentionAsync(q, k, v, { signal: controller.signal });
    controller.abort();
    expect(result.data).toEqual(attention(q, k, v).data);
  });
});

describe('mergeAttention', () => {
  const part = (): AttentionWithLse<'f32'> => ({ out: ramp([1, 2, 3, 4]), lse: ramp([1, 2, 3]) });
  const merge = mergeAttention as (parts: unknown) => AttentionWithLse;

  test('one part comes back as it is, two are weighed by their LSE', () => {
    const one = part();
    const merged = mergeAttention([one]);
    expect(merged.out.shape).toEqual([1, 2, 3, 4]);
    merged.lse.data.forEach((x, i) => expect(x).toBeCloseTo(one.lse.data[i], 5));
    merged.out.data.forEach((x, i) => expect(x).toBeCloseTo(one.out.data[i], 5));
    const a = { out: Tensor.from([1], [1, 1, 1, 1]), lse: Tensor.from([0], [1, 1, 1]) };
    const b = { out: Tensor.from([5], [1, 1, 1, 1]), lse: Tensor.from([Math.log(3)], [1, 1, 1]) };
    const both = mergeAttention([a, b]);
    expect(both.out.data[0]).toBeCloseTo(4, 5);
    expect(both.lse.data[0]).toBeCloseTo(Math.log(4), 5);
  });

  test('no rows merge to no rows', () => {
    const empty = { out: Tensor.zeros([1, 0, 3, 4]), lse: Tensor.zeros([1, 0, 3]) };
    expect(mergeAttention([empty, empty]).out.shape).toEqual([1, 0, 3, 4]);
  });

  test.each([
    ['INVALID_ARGUMENT parts', []],
    ['INVALID_ARGUMENT parts', undefined],
    ['INVALID_ARGUMENT parts[0]', [null]],
    ['INVALID_ARGUMENT parts[0].out', [{ lse: ramp([1, 2, 3]) }]],
    ['INVALID_ARGUMENT parts[1].lse', [part(), { out: ramp([1, 2, 3, 4]) }]],
    ['INVALID_RANK parts[0].out', [{ ...part(), out: ramp([2, 3, 4]) }]],
    ['INVALID_SHAPE parts[1].out', [part(), { ...part(), out: ramp([1, 2, 3, 5]) }]],
    ['INVALID_RANK parts[0].lse', [{ ...part(), lse: ramp([1, 2, 3, 1]) }]],
    ['INVALID_SHAPE parts[0].lse', [{ ...part(), lse: ramp([1, 2, 4]) }]],
    ['INVALID_DTYPE parts[0].lse', [{ ...part(), lse: ramp([1, 2, 3]).to('f16') }]],
    ['INVALID_DTYPE parts[1].out', [part(), { ...part(), out: ramp([1, 2, 3, 4]).to('f16') }]],
  ])('refuses with %s (%#)', (expected, parts) => {
    expect(errorOf(() => merge(parts))).toBe(expected);
  });
});

test('a broken backend is reported as INTERNAL, and the handles are free again', async () => {
  expect(getBackend().info).toEqual(backend());
  const spy = jest.spyOn(getBackend(), 'attendAsync').mockResolvedValue(false);
  const { q, k, v } = inputs();
  const error = await attentionAsync(q, k, v).catch((e: unknown) => e);
  expect(error).toBeInstanceOf(GqaError);
  expect((error as GqaError).code).toBe('INTERNAL');
  spy.mockRestore();
  attention(q, k, v);
});
