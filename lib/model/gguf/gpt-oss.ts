/**
 * 'gpt-oss'. Hugging Face has the experts of a layer as [experts, input, output], gate and up interleaved; GGUF as
 * [experts, output, input], gate and up apart.
 */
import type { Composition, GgufArchitecture } from './architecture';
import { commonFields, layerTypes, readHeads, rmsAndRope } from './common';
import { likeLlama } from './names';
import { plainPart } from './qwen';
import { valuesOf } from './rows';

const NAMES = likeLlama({
  post_attention_layernorm: 'post_attention_norm',
  'mlp.router': 'ffn_gate_inp',
});
const SINKS = /^model\.layers\.(\d+)\.self_attn\.sinks$/;
const EXPERTS = /^model\.layers\.(\d+)\.mlp\.experts\.(gate_up|down)_proj(_bias)?$/;
/** Of activations in gate and up; GGUF does not say, and there is one model family. */
const SWIGLU_LIMIT = 7;

export const gptOss: GgufArchitecture = {
  configJson(metadata) {
    const { rope_scaling, ...norm } = rmsAndRope(metadata, readHeads(metadata).headDim);
    return {
      model_type: 'gpt_oss',
      ...commonFields(metadata),
      ...norm,
      // YaRN's ramp between whole dims is rounded elsewhere, not in this model.
      rope_scaling: rope_scaling === null ? null : { ...(rope_scaling as object), truncate: false },
      intermediate_size: metadata.integer('expert_feed_forward_length'),
      num_local_experts: metadata.integer('expert_count'),
      num_experts_per_tok: metadata.integer('expert_used_count'),
      swiglu_limit: SWIGLU_LIMIT,
      sliding_window: metadata.integer('attention.sliding_window'),
      layer_types: layerTypes(metadata, 2),
      hidden_act: 'silu',
      attention_bias: true,
    };
  },

  locate(name, metadata) {
    const sinks = SINKS.exec(name);
    if (sinks !== null) return { stored: `blk.${sinks[1]}.attn_sinks.weight` };
    const experts = EXPERTS.exec(name);
    if (experts === null) return plainPart(NAMES, name, metadata);
    const [, layer, part, bias] = experts;
    const kind = bias === undefined ? 'weight' : 'bias';
    const stored = (part === 'down' ? ['down'] : ['gate', 'up']).map(
      (word) => `blk.${layer}.ffn_${word}_exps.${kind}`,
    );
    return bias === undefined ? matrices(stored) : biases(stored);
  },
};

/** Matrices [experts, out, in] of one or two tensors as [experts, in, out or 2 out], their outputs taken in turn. */
function matrices(stored: readonly string[]): Composition {
  const parts = stored.length;
  return {
    stored,
    shapeOf: ([experts, inputs, outputs]) => [experts, outputs / parts, inputs],
    compose(tensors) {
      const [experts, outputs, inputs] = tensors[0].shape;
      const data = new Float32Array(experts * inputs * outputs * parts);
      tensors.forEach((tensor, part) => {
        const values = valuesOf(tensor);
        for (let row = 0, from = 0; row < experts * outputs; row++) {
          const expert = Math.floor(row / outputs);
          const column = (row % outputs) * parts + part;
          for (let i = 0; i < inputs; i++, from++) {
            data[(expert * inputs + i) * outputs * parts + column] = values[from];
          }
        }
      });
      return { shape: [experts, inputs, outputs * parts], dtype: 'f32', data };
    },
  };
}

/** [experts, out] of one or two tensors as [experts, out or 2 out]. */
function biases(stored: readonly string[]): Composition {
  const parts = stored.length;
  return {
    stored,
    shapeOf: ([experts, outputs]) => [experts, outputs / parts],
    compose(tensors) {
      const [experts, outputs] = tensors[0].shape;
      const data = new Float32Array(experts * outputs * parts);
      tensors.forEach((tensor, part) => {
        valuesOf(tensor).forEach((value, i) => (data[i * parts + part] = value));
      });
      return { shape: [experts, outputs * parts], dtype: 'f32', data };
    },
  };
}
