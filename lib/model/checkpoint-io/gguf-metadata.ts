/** GGUF metadata of a Llama: from its config and tokenizer, or that of another file with other numbers of KV heads. */
import { basename } from 'node:path';
import type { FloatDType } from '../../core/dtype';
import type { GgufEntry, GgufKind, GgufValue } from '../../format/gguf-value';
import { Rope } from '../../nn/rope';
import { unsupported } from '../json-fields';
import type { ModelConfig } from '../types';

/** The tensor of Llama 3's scaling. */
export const ROPE_DIVISORS = 'rope_freqs.weight';
export const KV_HEADS_KEY = 'llama.attention.head_count_kv';

/** general.file_type by what most of the weights are (llama.h, enum llama_ftype). */
const FILE_TYPES: Readonly<Record<FloatDType, number>> = { f32: 0, f16: 1, bf16: 32 };

/** What there is to say of the model itself. */
export function modelEntries(
  path: string,
  config: ModelConfig,
  dtype: FloatDType,
): Map<string, GgufEntry> {
  const entries = new Map<string, GgufEntry>();
  const set = (key: string, kind: GgufKind, value: GgufValue): void => {
    entries.set(key, { kind, value });
  };
  set('general.architecture', 'string', 'llama');
  set('general.name', 'string', basename(path));
  set('general.file_type', 'u32', FILE_TYPES[dtype]);
  set('llama.vocab_size', 'u32', config.vocabSize);
  set('llama.context_length', 'u32', config.contextLength);
  set('llama.embedding_length', 'u32', config.hiddenSize);
  set('llama.block_count', 'u32', config.layers);
  set('llama.feed_forward_length', 'u32', config.intermediateSize);
  set('llama.attention.head_count', 'u32', config.heads);
  entries.set(KV_HEADS_KEY, kvHeadsEntry(config.layerKvHeads));
  set('llama.attention.key_length', 'u32', config.headDim);
  set('llama.attention.value_length', 'u32', config.headDim);
  set('llama.attention.layer_norm_rms_epsilon', 'f32', config.rmsNormEps);
  set('llama.rope.dimension_count', 'u32', config.headDim);
  set('llama.rope.freq_base', 'f32', config.rope.theta);
  const { scaling } = config.rope;
  if (scaling?.type === 'linear') {
    set('llama.rope.scaling.type', 'string', 'linear');
    set('llama.rope.scaling.factor', 'f32', scaling.factor);
  }
  if (scaling?.type === 'llama3') {
    set('llama.rope.scaling.original_context_length', 'u32', scaling.originalContext);
  }
  return entries;
}

/** One number where the layers agree, else a list. */
export function kvHeadsEntry(layerKvHeads: readonly number[]): GgufEntry {
  const [first] = layerKvHeads;
  return layerKvHeads.every((kvHeads) => kvHeads === first)
    ? { kind: 'u32', value: first }
    : { kind: 'i32[]', value: [...layerKvHeads] };
}

/** rope_freqs.weight: by what Llama 3's scaling divides each frequency, f32 [headDim / 2]; null without such scaling. */
export function ropeDivisors({ headDim, rope }: ModelConfig): Float32Array | null {
  const { theta, scaling } = rope;
  if (scaling === null || scaling.type === 'linear') return null;
  if (scaling.type === 'yarn') throw unsupported('RoPE scaling', 'linear, llama3', 'yarn');
  const plain = new Rope({ headDim, theta }).frequencies;
  const scaled = new Rope({ headDim, theta, scaling }).frequencies;
  return Float32Array.from(plain, (frequency, r) => frequency / scaled[r]);
}
