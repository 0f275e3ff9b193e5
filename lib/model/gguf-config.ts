/** ModelConfig from GGUF metadata and tensor shapes. */
import type { GgufFile } from '../format/gguf';
import { checkedConfig, layerCount } from './config';
import { JsonFields, unsupported } from './json-fields';
import type { ModelConfig, RopeScaling } from './types';

/** @throws GqaError INVALID_FILE, UNSUPPORTED_MODEL */
export function configFromGguf(file: GgufFile): ModelConfig {
  const metadata = new JsonFields(file.path, Object.fromEntries(file.metadata));
  const architecture = metadata.text('general.architecture') ?? '';
  if (architecture !== 'llama') {
    throw unsupported('general.architecture', 'llama', `'${architecture.slice(0, 80)}'`);
  }
  checkSinglePart(metadata);
  const tokenizer = (key: string): number[] => metadata.ids(`tokenizer.ggml.${key}`);
  const { tensors } = file;
  const heads = perLayer(metadata, 'llama.attention.head_count');
  const layers = layerCount(metadata, 'llama.block_count');
  const layerKvHeads = readLayerKvHeads(metadata, layers, heads);
  const hiddenSize = metadata.integer('llama.embedding_length');
  const headDim = metadata.integer('llama.attention.key_length', hiddenSize / heads);
  checkHeads(metadata, headDim);
  const eosTokenIds = ['eos_token_id', 'eot_token_id', 'eom_token_id'].flatMap(tokenizer);
  return checkedConfig({
    architecture,
    vocabSize: tensors.get('token_embd.weight')?.shape[0] ?? metadata.integer('llama.vocab_size'),
    hiddenSize,
    intermediateSize: perLayer(metadata, 'llama.feed_forward_length'),
    layers,
    heads,
    kvHeads: Math.max(...layerKvHeads),
    layerKvHeads,
    headDim,
    rmsNormEps: metadata.positive('llama.attention.layer_norm_rms_epsilon'),
    rope: {
      theta: metadata.positive('llama.rope.freq_base', 10_000),
      scaling: readScaling(file, metadata, headDim),
    },
    contextLength: metadata.integer('llama.context_length'),
    tiedEmbeddings: !tensors.has('output.weight'),
    attentionBias: tensors.has('blk.0.attn_q.bias'),
    mlpBias: tensors.has('blk.0.ffn_gate.bias'),
    bosTokenId: tokenizer('bos_token_id')[0] ?? null,
    eosTokenIds: [...new Set(eosTokenIds)],
  });
}

function checkSinglePart(metadata: JsonFields): void {
  const parts = metadata.integer('split.count', 1, 0);
  if (parts > 1) throw unsupported('split.count', '1: a model in one file', String(parts));
  const experts = metadata.integer('llama.expert_count', 0, 0);
  if (experts > 0) throw unsupported('llama.expert_count', '0', String(experts));
}

/** One number, or the same number for every layer. */
function perLayer(metadata: JsonFields, key: string, fallback?: number): number {
  const value = metadata.raw(key);
  if (!Array.isArray(value)) return metadata.integer(key, fallback);
  if (value.length === 0 || value.some((entry) => entry !== value[0])) {
    throw unsupported(key, 'the same in every layer', 'different by layer');
  }
  return new JsonFields(key, { [key]: value[0] as unknown }).integer(key);
}

/** One number, or one for each layer. */
function readLayerKvHeads(metadata: JsonFields, layers: number, heads: number): number[] {
  const key = 'llama.attention.head_count_kv';
  const value = metadata.raw(key);
  if (!Array.isArray(value)) {
    return new Array<number>(layers).fill(metadata.integer(key, heads));
  }
  if (value.length !== layers) throw metadata.wrong(key, `a list of ${layers} numbers`, value);
  return value.map((count: unknown) => new JsonFields(key, { [key]: count }).integer(key));
}

function checkHeads(metadata: JsonFields, headDim: number): void {
  const same = ['llama.attention.value_length', 'llama.rope.dimension_count'];
  for (const key of same) {
    const dim = metadata.integer(key, headDim);
    if (dim !== headDim) throw unsupported(key, `the head dim ${headDim}`, String(dim));
  }
}

/** Llama-3's scaling comes as a tensor of divisors, one a frequency; linear scaling as a factor. */
function readScaling(file: GgufFile, metadata: JsonFields, headDim: number): RopeScaling | null {
  const type = metadata.text('llama.rope.scaling.type') ?? 'none';
  if (type === 'linear') {
    const old = metadata.positive('llama.rope.scale_linear', 1);
    return { type, factor: metadata.positive('llama.rope.scaling.factor', old) };
  }
  if (type !== 'none') {
    throw unsupported('llama.rope.scaling.type', 'none, linear, rope_freqs', type.slice(0, 80));
  }
  const name = 'rope_freqs.weight';
  const info = file.tensors.get(name);
  if (info === undefined) return null;
  if (info.shape.length !== 1 || info.shape[0] !== headDim / 2 || info.type.dtype !== 'f32') {
    throw metadata.wrong(name, `F32 [${headDim / 2}]`, `${info.type.name} [${info.shape.join()}]`);
  }
  const factors = Array.from(file.read(name).data);
  if (!factors.every((factor) => Number.isFinite(factor) && factor > 0)) {
    throw metadata.wrong(
      name,
      'positive divisors',
      factors.find((factor) => !(factor > 0)),
    );
  }
  return { type: 'factors', factors };
}
