/**
 * 'chatglm' (ChatGLM2 and 3, GLM-4 of 2024) and 'glm4' (GLM-4 of 2025, with norms behind its sublayers). RoPE is
 * interleaved in both worlds, so that no row is moved; gate and up are one tensor, Q, K and V may be.
 */
import type { GgufArchitecture } from './architecture';
import { commonFields, partialRotary, readHeads } from './common';
import { likeLlama, type NameTable } from './names';
import { plainPart } from './qwen';

const NAMES = likeLlama({ 'mlp.gate_up_proj': 'ffn_up' });

function glm(modelType: string, names: NameTable): GgufArchitecture {
  return {
    configJson: (metadata) => ({
      model_type: modelType,
      ...commonFields(metadata),
      hidden_act: 'silu',
      rms_norm_eps: metadata.positive('attention.layer_norm_rms_epsilon'),
      rope_theta: metadata.positive('rope.freq_base', 10_000),
      partial_rotary_factor: partialRotary(metadata, readHeads(metadata).headDim),
      attention_bias: ['attn_q', 'attn_qkv'].some((part) =>
        metadata.hasTensor(`blk.0.${part}.bias`),
      ),
    }),
    locate: (name, metadata) => plainPart(names, name, metadata),
  };
}

export const chatGlm = glm('glm', NAMES);

export const glm4 = glm(
  'glm4',
  likeLlama({
    'mlp.gate_up_proj': 'ffn_up',
    post_self_attn_layernorm: 'post_attention_norm',
    post_mlp_layernorm: 'post_ffw_norm',
  }),
);
