/**
 * The types of the public API, checked by compiling: each @ts-expect-error fails the build where the line is accepted,
 * each assignment where a type is too wide. Only a little of it runs.
 */
import { createClient, createClientPool } from '@redis/client';
import {
  attention,
  attentionAsync,
  attentionBackward,
  FileBlockStore,
  KvCache,
  mergeAttention,
  plan,
  RedisBlockStore,
  Tensor,
  type BackendInfo,
  type BlockStore,
  type DType,
  type GqaErrorCode,
  type KvSequence,
  type Model,
  type Plan,
  type PlanOptions,
  type PresetName,
  type RedisClient,
  type SaveResult,
} from '../../lib';

/** True where A and B are the same type. */
type Same<A, B> =
  (<T>() => T extends A ? 1 : 2) extends <T>() => T extends B ? 1 : 2 ? true : false;
function same<A, B>(_: Same<A, B>): void {
  // What is checked is checked by the compiler.
}

test('tensors are typed by dtype', () => {
  const f32 = Tensor.from([1, 2], [2]);
  same<typeof f32, Tensor<'f32'>>(true);
  same<typeof f32.data, Float32Array>(true);
  const f16 = Tensor.zeros([2], 'f16');
  same<typeof f16, Tensor<'f16'>>(true);
  const bits: Uint16Array = f16.data;
  expect(bits).toHaveLength(2);
  const u8 = Tensor.view(new Uint8Array(2), [2]);
  same<typeof u8, Tensor<'u8'>>(true);
  const bf16 = f32.to('bf16');
  same<typeof bf16, Tensor<'bf16'>>(true);
  const shape: readonly number[] = f32.shape;
  expect(shape).toEqual([2]);
  const any: Tensor = f32;
  same<typeof any.dtype, DType>(true);
  const back: Float32Array = any.toFloat32();
  expect(back).toHaveLength(2);
});

/** Never called: its body is for the compiler. */
export function attentionTypes(f32: Tensor<'f32'>, f16: Tensor<'f16'>, u8: Tensor<'u8'>): void {
  const plain = attention(f32, f32, f32);
  same<typeof plain, Tensor<'f32'>>(true);
  const half = attention(f16, f16, f16, { causal: true });
  same<typeof half, Tensor<'f16'>>(true);
  const both = attention(f32, f32, f32, { returnLse: true });
  const lse: Tensor<'f32'> = both.lse;
  const out: Tensor<'f32'> = both.out;
  const { gradQ } = attentionBackward(f32, f32, f32, { ...both, gradOut: out, causal: true });
  same<typeof gradQ, Tensor<'f32'>>(true);
  // @ts-expect-error gradients need the LSE
  attentionBackward(f32, f32, f32, { out, gradOut: out });
  // @ts-expect-error gradients are f32
  attentionBackward(f16, f16, f16, { ...both, gradOut: out });
  const merged = mergeAttention([both, { out, lse }]);
  const mergedOut: Tensor<'f32'> = merged.out;
  const promise: Promise<Tensor<'f32'>> = attentionAsync(f32, f32, f32, {
    signal: new AbortController().signal,
  });
  attention(f32, f32, f32, {
    mask: u8,
    bias: f32,
    alibiSlopes: f32,
    sinkLogits: f32,
    window: 4,
    sinkTokens: 1,
  });
  attention(f32, f32, f32, { scale: 1, softcap: 30, out: f32 });
  void [mergedOut, promise];

  // @ts-expect-error q must be a float tensor
  attention(u8, f32, f32);
  // @ts-expect-error a mask is u8
  attention(f32, f32, f32, { mask: f32 });
  // @ts-expect-error a bias is f32
  attention(f32, f32, f32, { bias: u8 });
  // @ts-expect-error no such option
  attention(f32, f32, f32, { casual: true });
  // @ts-expect-error window is a number
  attention(f32, f32, f32, { window: '4' });
  // @ts-expect-error values are missing
  attention(f32, f32);
  // @ts-expect-error signal is for the async form
  attention(f32, f32, f32, { signal: new AbortController().signal });
  // @ts-expect-error parts are out and lse
  mergeAttention([f32]);
  // @ts-expect-error no such dtype
  Tensor.zeros([1], 'f64');
  // @ts-expect-error a Float32Array is no f16
  Tensor.view(new Float32Array(1), [1], 'f16');
  // @ts-expect-error dtype is read-only
  f32.dtype = 'f32';
}

export function cacheTypes(f32: Tensor<'f32'>): void {
  const cache = new KvCache({
    layers: 1,
    kvHeads: 1,
    headDim: 8,
    capacity: 16,
    dtype: 'bf16',
    window: 4,
  });
  const sequence: KvSequence = cache.sequence();
  sequence.append(0, f32, f32);
  const out: Tensor<'f32'> = attention(f32, sequence.layer(0));
  const both = attention(f32, sequence.layer(0), { returnLse: true, causal: false });
  const lse: Tensor<'f32'> = both.lse;
  void [out, lse];
  // @ts-expect-error capacity is missing
  new KvCache({ layers: 1, kvHeads: 1, headDim: 8 });
  // @ts-expect-error not a storage dtype
  new KvCache({ layers: 1, kvHeads: 1, headDim: 8, capacity: 16, dtype: 'i8' });
  // @ts-expect-error length is read-only
  sequence.length = 3;
  // @ts-expect-error values are missing
  sequence.append(0, f32);
}

export async function snapshotTypes(cache: KvCache, sequence: KvSequence): Promise<void> {
  const bytes: Uint8Array = sequence.snapshot();
  const restored: KvSequence = cache.restore(bytes);
  const written: number = await sequence.snapshotTo(process.stdout);
  await sequence.snapshotTo('path');
  await cache.restoreFrom(process.stdin);
  // What the package redis gives is a client, whatever else it is.
  const client: RedisClient = createClient();
  const store: BlockStore = new RedisBlockStore(client, { ttlSeconds: 60 });
  new RedisBlockStore(createClientPool());
  const saved: SaveResult = await restored.saveTo(new FileBlockStore('folder'), 'name');
  const loaded: KvSequence = await cache.loadFrom(store, 'name');
  void [written, saved.written, loaded];
  // @ts-expect-error bytes, not text
  cache.restore('bytes');
  // @ts-expect-error the name is missing
  await sequence.saveTo(store);
  // @ts-expect-error a store has more than that
  await cache.loadFrom({ get: () => Promise.resolve(null) }, 'name');
}

export async function modelTypes(model: Model): Promise<void> {
  for await (const { text, token } of model.generate('a', {
    maxTokens: 1,
    temperature: 0,
    stop: ['x'],
  })) {
    same<typeof text, string>(true);
    same<typeof token, number>(true);
  }
  model.generate([1, 2, 3]);
  model.generate([{ role: 'user', content: 'a' }]);
  const logits: Float32Array = await model.logits([1]);
  const { meanNll, perplexity, tokens }: { meanNll: number; perplexity: number; tokens: number } =
    await model.score([1, 2]);
  const ids: number[] = model.tokenizer.encode('a');
  const text: string = model.tokenizer.decode(ids);
  void [logits, meanNll, perplexity, tokens, text];
  // @ts-expect-error a prompt is text, ids or messages
  model.generate({ role: 'user', content: 'a' });
  // @ts-expect-error temperature is a number
  model.generate('a', { temperature: 'cold' });
}

export function planTypes(): void {
  const planned: Plan = plan({ model: 'llama-2-7b', dtype: ['f16', { k: 'q8', v: 'q4' }] });
  const floor: number | null = planned.loads[0].floorSeconds;
  const kind: 'MHA' | 'GQA' | 'MQA' = planned.groups[0].kind;
  const options: PlanOptions = { model: { model_type: 'llama' }, context: [1, 2], weights: 'q4_0' };
  const name: PresetName = 'gpt-oss-20b';
  void [floor, kind, options, name];
  // @ts-expect-error the model is missing
  plan({ context: 1 });
  // @ts-expect-error no such dtype of a cache
  plan({ model: 'llama-2-7b', dtype: 'q4_0' });
  // @ts-expect-error no such preset
  const unknown: PresetName = 'llama-9';
  // @ts-expect-error a plan is read-only
  planned.loads[0] = planned.loads[1];
  void unknown;
}

test('error codes and backend kinds are closed sets', () => {
  const code: GqaErrorCode = 'BUSY';
  // @ts-expect-error no such code
  const unknown: GqaErrorCode = 'NO_SUCH_CODE';
  const kind: BackendInfo['kind'] = 'js';
  expect([code, unknown, kind]).toHaveLength(3);
});
