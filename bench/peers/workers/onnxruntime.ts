/**
 * onnxruntime-node's GroupQueryAttention on its CPU provider. Past and present share their buffers, so that a call writes
 * its token in place. A quantised cache is filled by the operator itself, from an empty past.
 */
import { createRequire } from 'node:module';
import { join } from 'node:path';
import { widenToF32 } from '../widen';
import {
  headsFirst,
  queryTokens,
  readElements,
  timeCalls,
  writeElements,
  type AttentionHandlers,
  type AttentionTask,
} from '../attention-task';
import { groupQueryAttentionModel, type GroupQueryAttentionModel } from '../onnx-model';
import { serve } from '../protocol';

type Data = Float32Array | Uint16Array | Int8Array | Uint8Array | Int32Array;
interface OrtTensor {
  data: Data;
}
type Tensors = Record<string, OrtTensor>;
interface Session {
  run(feeds: Tensors, fetches: Tensors | string[]): Promise<Tensors>;
  release(): Promise<void>;
}
interface Ort {
  Tensor: new (type: string, data: Data, dims: readonly number[]) => OrtTensor;
  InferenceSession: { create(model: Uint8Array, options: object): Promise<Session> };
}

const ort = createRequire(join(process.argv[2], 'package.json'))('onnxruntime-node') as Ort;

type Types = Pick<GroupQueryAttentionModel, 'activations' | 'cache'>;
const TYPES: Readonly<Record<string, Types>> = {
  f32: { activations: 'float32', cache: 'float32' },
  f16: { activations: 'float16', cache: 'float16' },
  q8: { activations: 'float32', cache: 'int8' },
  q4: { activations: 'float32', cache: 'uint8' },
};
/** Largest magnitude that a quantised element has. */
const LARGEST: Readonly<Record<string, number>> = { q8: 127, q4: 7 };

let session: Session | null = null;
let copies = 0;
let call: (copy: number) => Promise<unknown>;

const int32 = (value: number) => new ort.Tensor('int32', Int32Array.of(value), [1]);

/** One scale for each of the kvHeads * headDim channels, from the largest magnitude over all tokens. */
function channelScales(data: Float32Array, channels: number, largest: number): OrtTensor {
  const scales = new Float32Array(channels);
  data.forEach((x, i) => (scales[i % channels] = Math.max(scales[i % channels], Math.abs(x))));
  return new ort.Tensor(
    'float32',
    scales.map((scale) => scale / largest),
    [channels],
  );
}

/** Feeds of `count` tokens from `from` on, whose last is token `total` - 1. */
function feedsFor(task: AttentionTask, from: number, count: number): Tensors {
  const { heads, kvHeads, headDim, context, dtype, inputs } = task;
  const { activations } = TYPES[dtype];
  const part = (path: string, rowElements: number, first: number, rows: number) => {
    const data = readElements(path, inputs).slice(
      first * rowElements,
      (first + rows) * rowElements,
    );
    return new ort.Tensor(activations, data, [1, rows, rowElements]);
  };
  const queries = queryTokens(task);
  const feeds: Tensors = {
    // Rows that only fill the cache need no queries of their own.
    query: part(task.q, heads * headDim, 0, Math.min(count, queries)),
    key: part(task.k, kvHeads * headDim, from, count),
    value: part(task.v, kvHeads * headDim, from, count),
    seqlens_k: int32(from + count - 1),
    total: int32(from + count),
  };
  if (count > queries) {
    const zeros = new Float32Array(count * heads * headDim);
    feeds.query = new ort.Tensor(activations, zeros, [1, count, heads * headDim]);
  }
  if (dtype in LARGEST) {
    const channels = kvHeads * headDim;
    const scales = (path: string) =>
      channelScales(readElements(path, inputs) as Float32Array, channels, LARGEST[dtype]);
    feeds.k_scale = scales(task.k);
    feeds.v_scale = scales(task.v);
  }
  if (from + count > context) throw new Error('more tokens than the case has');
  return feeds;
}

function cacheTensor({ kvHeads, headDim, dtype }: AttentionTask, tokens: number, data?: Data) {
  const { cache } = TYPES[dtype];
  const dim = cache === 'uint8' ? headDim / 2 : headDim;
  const arrays = {
    float32: Float32Array,
    float16: Uint16Array,
    int8: Int8Array,
    uint8: Uint8Array,
  };
  return new ort.Tensor(cache, data ?? new arrays[cache](kvHeads * tokens * dim), [
    1,
    kvHeads,
    tokens,
    dim,
  ]);
}

/** Keys and values of all but the last token, in a cache of `context` slots. */
async function filledCache(task: AttentionTask): Promise<{ key: Data; value: Data }> {
  const { context, kvHeads, inputs, dtype } = task;
  if (!(dtype in LARGEST)) {
    // The call writes its own token over the last one.
    const read = (path: string) => headsFirst(readElements(path, inputs), context, kvHeads);
    return { key: read(task.k), value: read(task.v) };
  }
  const key = cacheTensor(task, context);
  const value = cacheTensor(task, context);
  if (context > 1) {
    const feeds = { ...feedsFor(task, 0, context - 1), past_key: key, past_value: value };
    const { heads, headDim } = task;
    const output = new ort.Tensor('float32', new Float32Array((context - 1) * heads * headDim), [
      1,
      context - 1,
      heads * headDim,
    ]);
    await session!.run(feeds, { output, present_key: key, present_value: value });
  }
  return { key: key.data, value: value.data };
}

async function prepare(task: AttentionTask): Promise<void> {
  await session?.release();
  const { heads, kvHeads, headDim, context, dtype } = task;
  const types = TYPES[dtype];
  session = await ort.InferenceSession.create(
    groupQueryAttentionModel({ heads, kvHeads, ...types }),
    { intraOpNumThreads: task.threads, interOpNumThreads: 1 },
  );
  const queries = queryTokens(task);
  const elements = queries * heads * headDim;
  const outData =
    types.activations === 'float32' ? new Float32Array(elements) : new Uint16Array(elements);
  const output = new ort.Tensor(types.activations, outData, [1, queries, heads * headDim]);
  const feeds = feedsFor(task, context - queries, queries);
  const filled = task.op === 'decode' ? await filledCache(task) : null;
  copies = task.copies;
  const runs = Array.from({ length: copies }, () => {
    const key = cacheTensor(task, context, filled?.key.slice());
    const value = cacheTensor(task, context, filled?.value.slice());
    return {
      feeds: { ...feeds, past_key: key, past_value: value },
      fetches: { output, present_key: key, present_value: value },
    };
  });
  call = (copy) => session!.run(runs[copy].feeds, runs[copy].fetches);
  await call(copies - 1);
  writeElements(task.output, widenToF32(outData, outData instanceof Float32Array ? 'f32' : 'f16'));
}

const handlers: AttentionHandlers = {
  prepare,
  time: (seconds) => timeCalls(seconds, copies, call),
};
serve({ ...handlers });
