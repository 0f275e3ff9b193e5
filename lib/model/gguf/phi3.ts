/** 'phi3': Q, K and V are one tensor, as are gate and up; LongRoPE's factors are tensors. */
import type { JsonObject } from '../json-fields';
import type { GgufArchitecture } from './architecture';
import { commonFields, partialRotary, readHeads, ropeScaling, vectorOf } from './common';
import type { GgufMetadata } from './metadata';
import { likeLlama } from './names';
import { plainPart } from './qwen';

const NAMES = likeLlama({
  'self_attn.qkv_proj': 'attn_qkv',
  'mlp.gate_up_proj': 'ffn_up',
});

export const phi3: GgufArchitecture = {
  configJson(metadata) {
    const { headDim } = readHeads(metadata);
    const rotary = partialRotary(metadata, headDim);
    const window = metadata.integer('attention.sliding_window', 0, 0);
    const context = metadata.integer('context_length');
    return {
      model_type: 'phi3',
      ...commonFields(metadata),
      rms_norm_eps: metadata.positive('attention.layer_norm_rms_epsilon'),
      rope_theta: metadata.positive('rope.freq_base', 10_000),
      partial_rotary_factor: rotary,
      rope_scaling: longRope(metadata, headDim * rotary) ?? ropeScaling(metadata, headDim * rotary),
      original_max_position_embeddings: metadata.integer(
        'rope.scaling.original_context_length',
        context,
      ),
      ...(window > 0 ? { sliding_window: window } : {}),
      hidden_act: 'silu',
      attention_bias: false,
    };
  },
  locate: (name, metadata) => plainPart(NAMES, name, metadata),
};

function longRope(metadata: GgufMetadata, rotaryDim: number): JsonObject | null {
  const [short, long] = ['short', 'long'].map((range) =>
    vectorOf(metadata, `rope_factors_${range}.weight`, rotaryDim / 2),
  );
  if (short === null || long === null) return null;
  return {
    rope_type: 'longrope',
    short_factor: short,
    long_factor: long,
    ...(metadata.has('rope.scaling.attn_factor')
      ? { attention_factor: metadata.positive('rope.scaling.attn_factor') }
      : {}),
  };
}
