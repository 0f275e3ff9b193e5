/** 'starcoder': GPT-BigCode with one KV head. */
import { unsupported } from '../json-fields';
import type { GgufArchitecture } from './architecture';
import { commonFields, readHeads } from './common';
import { storedName, type NameTable } from './names';

const NAMES: NameTable = {
  layers: 'transformer.h.',
  model: {
    'transformer.wte': 'token_embd',
    'transformer.wpe': 'position_embd',
    'transformer.ln_f': 'output_norm',
    lm_head: 'output',
  },
  layer: {
    ln_1: 'attn_norm',
    'attn.c_attn': 'attn_qkv',
    'attn.c_proj': 'attn_output',
    ln_2: 'ffn_norm',
    'mlp.c_fc': 'ffn_up',
    'mlp.c_proj': 'ffn_down',
  },
};

export const gptBigCode: GgufArchitecture = {
  configJson(metadata) {
    const { kvHeads } = readHeads(metadata);
    if (kvHeads !== 1) {
      // Of several KV heads Hugging Face's layout is another one, and no model has them.
      throw unsupported(metadata.key('attention.head_count_kv'), '1', String(kvHeads));
    }
    const common = commonFields(metadata);
    return {
      model_type: 'gpt_bigcode',
      ...common,
      n_embd: common.hidden_size,
      n_head: common.num_attention_heads,
      n_layer: common.num_hidden_layers,
      n_inner: common.intermediate_size,
      n_positions: metadata.shapeOf('position_embd.weight')?.[0] ?? common.max_position_embeddings,
      multi_query: true,
      activation_function: 'gelu_pytorch_tanh',
      layer_norm_epsilon: metadata.positive('attention.layer_norm_epsilon'),
    };
  },
  locate(name) {
    const found = storedName(NAMES, name);
    return found === null ? null : { stored: found.stored };
  },
};
