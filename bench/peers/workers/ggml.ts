/**
 * The attention kernels of node-llama-cpp: ggml_flash_attn_ext of the libraries that its package ships, called directly.
 * K and V lie as llama.cpp's cache has them, [tokens, kvHeads, headDim]; a thread pool of its own is kept over the calls,
 * as llama.cpp can keep one.
 */
import { readdirSync } from 'node:fs';
import { createRequire } from 'node:module';
import { join } from 'node:path';
import {
  queryTokens,
  readElements,
  timeCalls,
  writeElements,
  type AttentionHandlers,
  type AttentionTask,
} from '../attention-task';
import { serve } from '../protocol';
import { widenToF32 } from '../widen';

type Pointer = object;
type NativeFunction = (...values: unknown[]) => unknown;
interface Koffi {
  load(path: string): { func(prototype: string): NativeFunction };
  proto(prototype: string): object;
  decode(pointer: Pointer, type: object): NativeFunction;
  struct(name: string, fields: Record<string, string>): object;
}

const peers = createRequire(join(process.argv[2], 'package.json'));
const koffi = peers('koffi') as Koffi;

/** enum ggml_type. */
const TYPE = { f32: 0, f16: 1, q4: 2, q8: 8, bf16: 30 } as const;
/** enum ggml_prec: what llama.cpp asks of its attention. */
const PRECISION_F32 = 10;
const STATUS_SUCCESS = 0;
/** Rows of a mask come in multiples of this. */
const MASK_PADDING = 64;
const F16_MINUS_INFINITY = 0xfc00;
/** struct ggml_threadpool_params is some 530 bytes; ggml itself fills it in. */
const THREADPOOL_PARAMS_BYTES = 4096;
/** Tensors and graphs of a case, not their data. */
const BOOKKEEPING_BYTES = 256 * 2 ** 20;
const GRAPH_NODES = 8;

const platform = `${process.platform}-${process.arch}`;
const folder = join(process.argv[2], 'node_modules', '@node-llama-cpp', platform, 'bins', platform);
const library = (pattern: RegExp) => {
  const name = readdirSync(folder).find((file) => pattern.test(file));
  if (name === undefined) throw new Error(`no library ${String(pattern)} in ${folder}`);
  return koffi.load(join(folder, name));
};
koffi.struct('ggml_init_params', { size: 'size_t', buffer: 'void *', no_alloc: 'bool' });
const base = library(/^libggml-base\.so/);
const registry = library(/^libggml(\.v[\d.]+)?\.so/);

const ggml = {
  init: base.func('void *ggml_init(ggml_init_params params)'),
  free: base.func('void ggml_free(void *ctx)'),
  tensor: base.func(
    'void *ggml_new_tensor_4d(void *ctx, int type, int64_t a, int64_t b, int64_t c, int64_t d)',
  ),
  permute: base.func('void *ggml_permute(void *ctx, void *t, int a, int b, int c, int d)'),
  attention: base.func(
    'void *ggml_flash_attn_ext(void *ctx, void *q, void *k, void *v, void *mask, float scale, float bias, float cap)',
  ),
  setPrecision: base.func('void ggml_flash_attn_ext_set_prec(void *t, int precision)'),
  graph: base.func('void *ggml_new_graph_custom(void *ctx, size_t nodes, bool grads)'),
  expand: base.func('void ggml_build_forward_expand(void *graph, void *t)'),
  quantise: base.func(
    'size_t ggml_quantize_chunk(int type, const float *from, uint8_t *to, int64_t start, int64_t rows, int64_t columns, void *importance)',
  ),
  rowBytes: base.func('size_t ggml_row_size(int type, int64_t elements)'),
  allocate: base.func('void *ggml_backend_alloc_ctx_tensors(void *ctx, void *backend)'),
  freeBuffer: base.func('void ggml_backend_buffer_free(void *buffer)'),
  set: base.func(
    'void ggml_backend_tensor_set(void *t, const void *data, size_t offset, size_t bytes)',
  ),
  get: base.func('void ggml_backend_tensor_get(void *t, void *data, size_t offset, size_t bytes)'),
  compute: base.func('int ggml_backend_graph_compute(void *backend, void *graph)'),
  deviceOf: base.func('void *ggml_backend_get_device(void *backend)'),
  registryOf: base.func('void *ggml_backend_dev_backend_reg(void *device)'),
  address: base.func('void *ggml_backend_reg_get_proc_address(void *registry, const char *name)'),
  poolParams: base.func('void ggml_threadpool_params_init(void *params, int threads)'),
  load: registry.func('void ggml_backend_load_all_from_path(const char *folder)'),
  backend: registry.func('void *ggml_backend_init_by_name(const char *name, void *params)'),
};

ggml.load(folder);
const backend = ggml.backend('CPU', null) as Pointer;
const cpu = ggml.registryOf(ggml.deviceOf(backend));
/** A function of the CPU library that ggml chose for this machine. */
const cpuFunction = (name: string, prototype: string) =>
  koffi.decode(ggml.address(cpu, name) as Pointer, koffi.proto(prototype));
const setThreads = cpuFunction('ggml_backend_set_n_threads', 'void set_n_threads(void *b, int n)');
const newPool = cpuFunction('ggml_threadpool_new', 'void *threadpool_new(void *params)');
const freePool = cpuFunction('ggml_threadpool_free', 'void threadpool_free(void *pool)');
const setPool = cpuFunction('ggml_backend_cpu_set_threadpool', 'void set_pool(void *b, void *p)');

let pool: Pointer | null = null;
let copies = 0;
let call: (copy: number) => void;
let release: () => void = () => undefined;

function useThreads(threads: number): void {
  const params = Buffer.alloc(THREADPOOL_PARAMS_BYTES);
  ggml.poolParams(params, threads);
  const next = newPool(params) as Pointer;
  setPool(backend, next);
  setThreads(backend, threads);
  if (pool !== null) freePool(pool);
  pool = next;
}

/** The bytes of rows of `dim` elements as the cache holds them. */
function encoded(data: Float32Array | Uint16Array, type: number, dim: number): Uint8Array {
  if (type !== TYPE.q8 && type !== TYPE.q4) {
    return new Uint8Array(data.buffer, data.byteOffset, data.byteLength);
  }
  const rows = data.length / dim;
  const bytes = new Uint8Array(rows * Number(ggml.rowBytes(type, dim)));
  ggml.quantise(type, data, bytes, 0, rows, dim, null);
  return bytes;
}

function causalMask(queries: number): Uint16Array {
  const rows = Math.ceil(queries / MASK_PADDING) * MASK_PADDING;
  const mask = new Uint16Array(rows * queries);
  for (let row = 0; row < queries; row++) {
    mask.fill(F16_MINUS_INFINITY, row * queries + row + 1, (row + 1) * queries);
  }
  return mask;
}

function prepare(task: AttentionTask): void {
  release();
  useThreads(task.threads);
  const { heads, kvHeads, headDim, context, dtype, inputs } = task;
  const queries = queryTokens(task);
  const type = TYPE[dtype];
  const ctx = ggml.init({ size: BOOKKEEPING_BYTES, buffer: null, no_alloc: true }) as Pointer;
  const q = ggml.tensor(ctx, TYPE.f32, headDim, heads, queries, 1);
  const maskData = task.op === 'prefill' ? causalMask(queries) : null;
  const mask =
    maskData === null ? null : ggml.tensor(ctx, TYPE.f16, context, maskData.length / context, 1, 1);
  const layers = Array.from({ length: task.copies }, () => {
    const k = ggml.tensor(ctx, type, headDim, kvHeads, context, 1);
    const v = ggml.tensor(ctx, type, headDim, kvHeads, context, 1);
    const [rows, keys, values] = [q, k, v].map((tensor) => ggml.permute(ctx, tensor, 0, 2, 1, 3));
    const out = ggml.attention(ctx, rows, keys, values, mask, 1 / Math.sqrt(headDim), 0, 0);
    ggml.setPrecision(out, PRECISION_F32);
    const graph = ggml.graph(ctx, GRAPH_NODES, false);
    ggml.expand(graph, out);
    return { k, v, out, graph };
  });
  const buffer = ggml.allocate(ctx, backend) as Pointer;
  const fill = (tensor: unknown, data: ArrayBufferView) =>
    ggml.set(tensor, data, 0, data.byteLength);
  fill(q, widenToF32(readElements(task.q, inputs), inputs));
  if (maskData !== null) fill(mask, maskData);
  const k = encoded(readElements(task.k, inputs), type, headDim);
  const v = encoded(readElements(task.v, inputs), type, headDim);
  for (const layer of layers) {
    fill(layer.k, k);
    fill(layer.v, v);
  }
  copies = task.copies;
  call = (copy) => {
    const status = ggml.compute(backend, layers[copy].graph);
    if (status !== STATUS_SUCCESS)
      throw new Error(`ggml_backend_graph_compute gave ${String(status)}`);
  };
  release = () => {
    ggml.freeBuffer(buffer);
    ggml.free(ctx);
  };
  call(copies - 1);
  const result = new Float32Array(queries * heads * headDim);
  ggml.get(layers[copies - 1].out, result, 0, result.byteLength);
  writeElements(task.output, result);
}

const handlers: AttentionHandlers = {
  prepare,
  time: (seconds) => timeCalls(seconds, copies, call),
};
serve({ ...handlers });
