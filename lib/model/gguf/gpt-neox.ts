/** 'gptneox'. GGUF has all queries, all keys and all values one after the other, Hugging Face those of head by head. */
import type { GgufArchitecture } from './architecture';
import { commonFields, partialRotary, readHeads } from './common';
import { qkvRow } from './falcon';
import { storedName, type NameTable } from './names';

const NAMES: NameTable = {
  layers: 'gpt_neox.layers.',
  model: {
    'gpt_neox.embed_in': 'token_embd',
    'gpt_neox.final_layer_norm': 'output_norm',
    embed_out: 'output',
  },
  layer: {
    input_layernorm: 'attn_norm',
    'attention.query_key_value': 'attn_qkv',
    'attention.dense': 'attn_output',
    post_attention_layernorm: 'ffn_norm',
    'mlp.dense_h_to_4h': 'ffn_up',
    'mlp.dense_4h_to_h': 'ffn_down',
  },
};

export const gptNeoX: GgufArchitecture = {
  configJson(metadata) {
    const rotary = partialRotary(metadata, readHeads(metadata).headDim);
    const theta = metadata.positive('rope.freq_base', 10_000);
    return {
      model_type: 'gpt_neox',
      ...commonFields(metadata),
      hidden_act: 'gelu',
      rotary_pct: rotary,
      rotary_emb_base: theta,
      use_parallel_residual: metadata.flag('use_parallel_residual', true),
      attention_bias: metadata.hasTensor('blk.0.attn_qkv.bias'),
      layer_norm_eps: metadata.positive('attention.layer_norm_epsilon'),
    };
  },
  locate(name, metadata) {
    const found = storedName(NAMES, name);
    if (found === null) return null;
    const { stored, storedPart } = found;
    return storedPart === 'attn_qkv' ? { stored, rowOf: qkvRow(metadata) } : { stored };
  },
};
