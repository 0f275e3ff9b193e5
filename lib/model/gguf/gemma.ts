/** 'gemma2' and 'gemma3'. Norms are stored as 1 + w, and GGUF has no output head: it is the embedding. */
import type { JsonObject } from '../json-fields';
import type { GgufArchitecture } from './architecture';
import { commonFields, layersOf, layerTypes, readHeads, rmsAndRope } from './common';
import type { GgufMetadata } from './metadata';
import { likeLlama, storedName } from './names';
import { plainPart } from './qwen';

const NAMES = likeLlama({
  post_attention_layernorm: 'post_attention_norm',
  pre_feedforward_layernorm: 'ffn_norm',
  post_feedforward_layernorm: 'post_ffw_norm',
  'self_attn.q_norm': 'attn_q_norm',
  'self_attn.k_norm': 'attn_k_norm',
});

/** Layers of the 27B models, whose queries are scaled by hidden / heads and not by the head dim. */
const LARGEST = { gemma2: 46, gemma3: 62 };

const locate: GgufArchitecture['locate'] = (name, metadata) => {
  const part = plainPart(NAMES, name, metadata);
  if (part === null || storedName(NAMES, name)?.storedPart.endsWith('norm') !== true) return part;
  return { ...part, add: -1 };
};

export const gemma2: GgufArchitecture = {
  configJson: (metadata) => ({
    model_type: 'gemma2',
    ...sharedFields(metadata, LARGEST.gemma2),
    sliding_window: metadata.integer('attention.sliding_window', 4096),
    layer_types: layerTypes(metadata, 2),
    attn_logit_softcapping: metadata.positive('attn_logit_softcapping', 50),
    final_logit_softcapping: metadata.positive('final_logit_softcapping', 30),
  }),
  locate,
};

export const gemma3: GgufArchitecture = {
  configJson(metadata) {
    const window = metadata.integer('attention.sliding_window', 0, 0);
    return {
      model_type: 'gemma3_text',
      ...sharedFields(metadata, LARGEST.gemma3),
      ...(window > 0 ? { sliding_window: window } : {}),
      layer_types: layerTypes(metadata, window > 0 ? 6 : 1),
      rope_local_base_freq: metadata.positive('rope.freq_base_swa', 10_000),
      final_logit_softcapping: metadata.has('final_logit_softcapping')
        ? metadata.positive('final_logit_softcapping')
        : null,
    };
  },
  locate,
};

function sharedFields(metadata: GgufMetadata, largest: number): JsonObject {
  const { headDim, heads } = readHeads(metadata);
  const hiddenSize = metadata.integer('embedding_length');
  const scaled = layersOf(metadata) === largest ? hiddenSize / heads : headDim;
  return {
    ...commonFields(metadata),
    ...rmsAndRope(metadata, headDim),
    hidden_activation: 'gelu_pytorch_tanh',
    attention_bias: false,
    query_pre_attn_scalar: metadata.has('attention.scale')
      ? metadata.positive('attention.scale') ** -2
      : scaled,
  };
}
