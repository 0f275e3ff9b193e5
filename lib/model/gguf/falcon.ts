/** 'falcon': the 7B model's block and that of 40B, which has two norms. GGUF has Q, K and V one after the other. */
import { unsupported } from '../json-fields';
import type { GgufArchitecture } from './architecture';
import { commonFields, readHeads } from './common';
import type { GgufMetadata } from './metadata';
import { storedName, type NameTable } from './names';
import { groupedQkvRow } from './rows';

const NAMES: NameTable = {
  layers: 'transformer.h.',
  model: {
    'transformer.word_embeddings': 'token_embd',
    'transformer.ln_f': 'output_norm',
    lm_head: 'output',
  },
  layer: {
    input_layernorm: 'attn_norm',
    ln_mlp: 'attn_norm',
    ln_attn: 'attn_norm_2',
    'self_attention.query_key_value': 'attn_qkv',
    'self_attention.dense': 'attn_output',
    'mlp.dense_h_to_4h': 'ffn_up',
    'mlp.dense_4h_to_h': 'ffn_down',
  },
};

export const falcon: GgufArchitecture = {
  configJson(metadata) {
    const { kvHeads } = readHeads(metadata);
    const norms = hasTwoNorms(metadata) ? 2 : 1;
    const { intermediate_size, ...common } = commonFields(metadata);
    return {
      model_type: 'falcon',
      ...common,
      ffn_hidden_size: intermediate_size,
      num_kv_heads: kvHeads,
      multi_query: true,
      new_decoder_architecture: kvHeads !== 1 || norms === 2,
      num_ln_in_parallel_attn: norms,
      parallel_attn: true,
      alibi: false,
      bias: metadata.hasTensor('blk.0.attn_qkv.bias'),
      layer_norm_epsilon: metadata.positive('attention.layer_norm_epsilon'),
      rope_theta: metadata.positive('rope.freq_base', 10_000),
      activation: 'gelu',
    };
  },

  locate(name, metadata) {
    const found = storedName(NAMES, name);
    if (found === null) return null;
    const { stored, storedPart, part } = found;
    // Both are words for attn_norm: which one the model has is a matter of how many norms there are.
    if (part === 'ln_mlp' && !hasTwoNorms(metadata)) return null;
    if (part === 'input_layernorm' && hasTwoNorms(metadata)) return null;
    return storedPart === 'attn_qkv' ? { stored, rowOf: qkvRow(metadata) } : { stored };
  },
};

function hasTwoNorms(metadata: GgufMetadata): boolean {
  return metadata.hasTensor('blk.0.attn_norm_2.weight');
}

/** @throws GqaError UNSUPPORTED_MODEL where layers differ in their KV heads */
export function qkvRow(metadata: GgufMetadata): (row: number) => number {
  const { heads, kvHeads, headDim } = readHeads(metadata);
  if (!Array.isArray(kvHeads)) return groupedQkvRow(heads, kvHeads, headDim);
  const key = metadata.key('attention.head_count_kv');
  throw unsupported(key, 'the same in every layer', 'different by layer');
}
