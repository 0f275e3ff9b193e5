/** Well-known models: of their public config.json what the planner reads, in its own words. */
import { expectedError } from '../../core/errors';
import { closest } from './closest';
import { shapeFromConfig } from './architectures';
import type { ModelShape } from './shape';

type Config = Readonly<Record<string, string | number | boolean | null>>;

/** Sizes that most configs state, in this order. */
function sizes(
  [hidden_size, num_hidden_layers]: [hidden: number, layers: number],
  [num_attention_heads, num_key_value_heads, head_dim]: [q: number, kv: number, dim: number],
  intermediate_size: number,
  vocab_size: number,
  max_position_embeddings: number,
): Config {
  return {
    ...{ hidden_size, num_hidden_layers, num_attention_heads, num_key_value_heads, head_dim },
    ...{ intermediate_size, vocab_size, max_position_embeddings },
  };
}

const CONFIGS = {
  'llama-2-7b': {
    model_type: 'llama',
    ...sizes([4096, 32], [32, 32, 128], 11_008, 32_000, 4096),
  },
  'llama-2-70b': {
    model_type: 'llama',
    ...sizes([8192, 80], [64, 8, 128], 28_672, 32_000, 4096),
  },
  'llama-3.2-1b': {
    model_type: 'llama',
    ...sizes([2048, 16], [32, 8, 64], 8192, 128_256, 131_072),
    tie_word_embeddings: true,
  },
  'llama-3.1-8b': {
    model_type: 'llama',
    ...sizes([4096, 32], [32, 8, 128], 14_336, 128_256, 131_072),
  },
  'mistral-7b': {
    model_type: 'mistral',
    ...sizes([4096, 32], [32, 8, 128], 14_336, 32_000, 32_768),
    sliding_window: 4096,
  },
  'mixtral-8x7b': {
    model_type: 'mixtral',
    ...sizes([4096, 32], [32, 8, 128], 14_336, 32_000, 32_768),
    num_local_experts: 8,
    num_experts_per_tok: 2,
  },
  'qwen2.5-0.5b': {
    model_type: 'qwen2',
    ...sizes([896, 24], [14, 2, 64], 4864, 151_936, 32_768),
    tie_word_embeddings: true,
  },
  'qwen3-0.6b': {
    model_type: 'qwen3',
    ...sizes([1024, 28], [16, 8, 128], 3072, 151_936, 40_960),
    tie_word_embeddings: true,
  },
  'gemma-2-2b': {
    model_type: 'gemma2',
    ...sizes([2304, 26], [8, 4, 256], 9216, 256_000, 8192),
    sliding_window: 4096,
  },
  'gemma-3-1b': {
    model_type: 'gemma3_text',
    ...sizes([1152, 26], [4, 1, 256], 6912, 262_144, 32_768),
    sliding_window: 512,
  },
  'smollm2-135m': {
    model_type: 'llama',
    ...sizes([576, 30], [9, 3, 64], 1536, 49_152, 8192),
    tie_word_embeddings: true,
  },
  'smollm2-360m': {
    model_type: 'llama',
    ...sizes([960, 32], [15, 5, 64], 2560, 49_152, 8192),
    tie_word_embeddings: true,
  },
  'tinyllama-1.1b': {
    model_type: 'llama',
    ...sizes([2048, 22], [32, 4, 64], 5632, 32_000, 2048),
  },
  'falcon-7b': {
    model_type: 'falcon',
    ...{ hidden_size: 4544, num_hidden_layers: 32, num_attention_heads: 71, vocab_size: 65_024 },
    ...{ multi_query: true, new_decoder_architecture: false, parallel_attn: true, bias: false },
  },
  starcoder: {
    model_type: 'gpt_bigcode',
    ...{ n_embd: 6144, n_layer: 40, n_head: 48, n_inner: 24_576, n_positions: 8192 },
    ...{ vocab_size: 49_152, multi_query: true },
  },
  'chatglm2-6b': {
    model_type: 'chatglm',
    ...{ hidden_size: 4096, num_layers: 28, num_attention_heads: 32, kv_channels: 128 },
    ...{ multi_query_attention: true, multi_query_group_num: 2, ffn_hidden_size: 13_696 },
    ...{ padded_vocab_size: 65_024, seq_length: 32_768, add_qkv_bias: true },
  },
  'phi-3-mini': {
    model_type: 'phi3',
    ...sizes([3072, 32], [32, 32, 96], 8192, 32_064, 4096),
    sliding_window: 2047,
  },
  'gpt-oss-20b': {
    model_type: 'gpt_oss',
    ...sizes([2880, 24], [64, 8, 64], 2880, 201_088, 131_072),
    ...{ num_local_experts: 32, num_experts_per_tok: 4, sliding_window: 128 },
  },
} as const satisfies Readonly<Record<string, Config>>;

export type PresetName = keyof typeof CONFIGS;

export const PRESETS = Object.keys(CONFIGS) as PresetName[];

export function isPreset(name: string): name is PresetName {
  return Object.hasOwn(CONFIGS, name);
}

/** @throws GqaError INVALID_ARGUMENT where there is none of that name; the message says which come close. */
export function preset(name: string): ModelShape {
  const known = name.toLowerCase();
  if (isPreset(known)) return shapeFromConfig(known, `preset ${known}`, CONFIGS[known]);
  const near = closest(known, PRESETS);
  const expected =
    near.length > 0
      ? `a preset (did you mean ${near.join(' or ')}?) or a path`
      : `a path, or one of the presets ${PRESETS.join(', ')}`;
  throw expectedError('INVALID_ARGUMENT', 'model', expected, `'${name.slice(0, 200)}'`);
}
