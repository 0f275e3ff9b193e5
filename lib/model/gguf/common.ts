/** Fields of config.json that most architectures call alike, from GGUF's metadata and shapes of tensors. */
import { LAYER_KV_HEADS, layerCount } from '../config';
import { JsonFields, type JsonObject, unsupported } from '../json-fields';
import type { StoredPart } from './architecture';
import type { GgufMetadata } from './metadata';
import type { TensorName } from './names';

export interface HeadCounts {
  heads: number;
  /** One number, or each layer's where they differ. */
  kvHeads: number | number[];
  /** As stated, else hidden / heads. */
  headDim: number;
}

/** @throws GqaError INVALID_FILE, UNSUPPORTED_MODEL */
export function readHeads(metadata: GgufMetadata): HeadCounts {
  const layers = layersOf(metadata);
  const heads = metadata.uniform('attention.head_count');
  const kvHeads = metadata.perLayer('attention.head_count_kv', layers, heads);
  const hiddenSize = metadata.integer('embedding_length');
  const headDim = metadata.integer('attention.key_length', hiddenSize / heads);
  const valueDim = metadata.integer('attention.value_length', headDim);
  if (valueDim !== headDim) {
    const key = metadata.key('attention.value_length');
    throw unsupported(key, `the head dim ${headDim}`, String(valueDim));
  }
  return { heads, kvHeads, headDim };
}

export function layersOf(metadata: GgufMetadata): number {
  const key = metadata.key('block_count');
  const fields = new JsonFields(metadata.file.path, { [key]: metadata.raw('block_count') });
  return layerCount(fields, key);
}

/** Sizes, heads, context, ties and special tokens. @throws GqaError INVALID_FILE, UNSUPPORTED_MODEL */
export function commonFields(metadata: GgufMetadata): JsonObject {
  metadata.checkSinglePart();
  const { heads, kvHeads, headDim } = readHeads(metadata);
  const rows = metadata.shapeOf('token_embd.weight')?.[0];
  return {
    vocab_size: rows ?? metadata.integer('vocab_size'),
    hidden_size: metadata.integer('embedding_length'),
    intermediate_size: metadata.uniform('feed_forward_length'),
    num_hidden_layers: layersOf(metadata),
    num_attention_heads: heads,
    // Tensors have just the heads of their layer: config.json has no other way to say that than our own field.
    num_key_value_heads: Array.isArray(kvHeads) ? heads : kvHeads,
    ...(Array.isArray(kvHeads) ? { [LAYER_KV_HEADS]: checkedDivisors(kvHeads, heads) } : {}),
    head_dim: headDim,
    max_position_embeddings: metadata.integer('context_length'),
    tie_word_embeddings: !metadata.hasTensor('output.weight'),
    ...specialTokens(metadata),
  };
}

function checkedDivisors(kvHeads: readonly number[], heads: number): readonly number[] {
  const odd = kvHeads.find((count) => heads % count !== 0);
  if (odd === undefined) return kvHeads;
  throw unsupported('the number of KV heads', `a divisor of ${heads}`, String(odd));
}

export function specialTokens(metadata: GgufMetadata): JsonObject {
  const ends = ['eos_token_id', 'eot_token_id', 'eom_token_id'];
  return {
    bos_token_id: metadata.tokenIds('bos_token_id')[0] ?? null,
    eos_token_id: [...new Set(ends.flatMap((key) => metadata.tokenIds(key)))],
  };
}

/** rms_norm_eps and RoPE over the whole head. @throws GqaError INVALID_FILE, UNSUPPORTED_MODEL */
export function rmsAndRope(metadata: GgufMetadata, headDim: number): JsonObject {
  const turned = metadata.integer('rope.dimension_count', headDim);
  if (turned !== headDim) {
    const key = metadata.key('rope.dimension_count');
    throw unsupported(key, `the head dim ${headDim}`, String(turned));
  }
  return {
    rms_norm_eps: metadata.positive('attention.layer_norm_rms_epsilon'),
    rope_theta: metadata.positive('rope.freq_base', 10_000),
    rope_scaling: ropeScaling(metadata, headDim),
  };
}

/** The part of each head that is turned. @throws GqaError INVALID_FILE */
export function partialRotary(metadata: GgufMetadata, headDim: number): number {
  const turned = metadata.integer('rope.dimension_count', headDim);
  if (turned <= headDim) return turned / headDim;
  throw metadata.wrong('rope.dimension_count', `at most the head dim ${headDim}`, turned);
}

/** Llama 3's scaling comes as a tensor of divisors, one a frequency; other ones as a type and its numbers. */
export function ropeScaling(metadata: GgufMetadata, rotaryDim: number): JsonObject | null {
  const type = metadata.text('rope.scaling.type') ?? 'none';
  switch (type) {
    case 'none':
      return frequencyDivisors(metadata, 'rope_freqs.weight', rotaryDim);
    case 'linear': {
      const old = metadata.positive('rope.scale_linear', 1);
      return { rope_type: type, factor: metadata.positive('rope.scaling.factor', old) };
    }
    case 'yarn':
      return {
        rope_type: type,
        factor: metadata.positive('rope.scaling.factor'),
        original_max_position_embeddings: metadata.integer('rope.scaling.original_context_length'),
        beta_fast: metadata.positive('rope.scaling.yarn_beta_fast', 32),
        beta_slow: metadata.positive('rope.scaling.yarn_beta_slow', 1),
      };
    default: {
      const known = 'none, linear, yarn, rope_freqs';
      throw unsupported(metadata.key('rope.scaling.type'), known, type.slice(0, 80));
    }
  }
}

function frequencyDivisors(
  metadata: GgufMetadata,
  tensor: string,
  rotaryDim: number,
): JsonObject | null {
  const factors = vectorOf(metadata, tensor, rotaryDim / 2);
  return factors === null ? null : { rope_type: 'factors', factors };
}

/** Positive numbers of a small tensor in f32; null where there is none. @throws GqaError INVALID_FILE */
export function vectorOf(metadata: GgufMetadata, tensor: string, size: number): number[] | null {
  const info = metadata.file.tensors.get(tensor);
  if (info === undefined) return null;
  const fields = new JsonFields(metadata.file.path, {});
  if (info.shape.length !== 1 || info.shape[0] !== size || info.type.dtype !== 'f32') {
    throw fields.wrong(tensor, `F32 [${size}]`, `${info.type.name} [${info.shape.join()}]`);
  }
  const values = Array.from(metadata.file.read(tensor).data);
  const odd = values.find((value) => !(Number.isFinite(value) && value > 0));
  if (odd === undefined) return values;
  throw fields.wrong(tensor, 'positive divisors', odd);
}

/**
 * 'sliding_attention' or 'full_attention' of each layer. GGUF's key is a period, of which the last layer attends to all,
 * or a list of what is windowed; most files have neither, and the architecture's own period holds.
 */
export function layerTypes(metadata: GgufMetadata, period: number): string[] {
  const layers = layersOf(metadata);
  const key = 'attention.sliding_window_pattern';
  const stated = metadata.raw(key);
  const name = (windowed: boolean): string => (windowed ? 'sliding_attention' : 'full_attention');
  if (Array.isArray(stated)) {
    if (stated.length !== layers) throw metadata.wrong(key, `a list of ${layers} flags`, stated);
    return stated.map((windowed: unknown) => name(Boolean(windowed)));
  }
  const every = metadata.integer(key, period, 0);
  return Array.from({ length: layers }, (_, i) => name(every > 0 && i % every < every - 1));
}

/** Of files whose converter fused the projections of a layer: the rows of one of them. */
export function fusedPart(
  { storedPart, layer, kind }: TensorName,
  metadata: GgufMetadata,
): StoredPart | null {
  const role = ['attn_q', 'attn_k', 'attn_v'].indexOf(storedPart);
  const stored = `blk.${layer}.attn_qkv.${kind}`;
  if (role < 0 || layer === null || !metadata.hasTensor(stored)) return null;
  const { heads, kvHeads, headDim } = readHeads(metadata);
  const ofLayer = Array.isArray(kvHeads) ? (kvHeads[layer] ?? 0) : kvHeads;
  return { stored, first: [0, heads, heads + ofLayer][role] * headDim };
}
