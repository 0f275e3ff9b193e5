/** ModelConfig from a Hugging Face config.json. Fields that a file leaves out take LlamaConfig's defaults. */
import { isObject, type JsonFields, unsupported } from './json-fields';
import type { ModelConfig, RopeScaling } from './types';

/** model_type to architecture: a Mistral without a window computes what a Llama does. */
const ARCHITECTURES: ReadonlyMap<string, string> = new Map([
  ['llama', 'llama'],
  ['mistral', 'llama'],
]);

/** HF's names of x * sigmoid(x). */
const SILU = ['silu', 'swish'];

/**
 * @param config config.json
 * @param generation generation_config.json, or an empty object; its end tokens count too
 * @param hasOutputHead whether the checkpoint has lm_head.weight: decides where tie_word_embeddings is not stated
 * @throws GqaError INVALID_FILE, UNSUPPORTED_MODEL
 */
export function configFromHuggingFace(
  config: JsonFields,
  generation: JsonFields,
  hasOutputHead: boolean,
): ModelConfig {
  const architecture = readArchitecture(config);
  const hiddenSize = config.integer('hidden_size', 4096);
  const heads = config.integer('num_attention_heads', 32);
  const eosTokenIds = [...config.ids('eos_token_id'), ...generation.ids('eos_token_id')];
  return checkedConfig({
    architecture,
    vocabSize: config.integer('vocab_size', 32_000),
    hiddenSize,
    intermediateSize: config.integer('intermediate_size', 11_008),
    layers: config.integer('num_hidden_layers', 32),
    heads,
    kvHeads: config.integer('num_key_value_heads', heads),
    headDim: config.integer('head_dim', hiddenSize / heads),
    rmsNormEps: config.positive('rms_norm_eps', 1e-6),
    rope: readRope(config),
    contextLength: config.integer('max_position_embeddings', 2048),
    tiedEmbeddings: config.flag('tie_word_embeddings', !hasOutputHead),
    attentionBias: config.flag('attention_bias', false),
    mlpBias: config.flag('mlp_bias', false),
    bosTokenId: config.ids('bos_token_id')[0] ?? null,
    eosTokenIds: [...new Set(eosTokenIds)],
  });
}

/** What every source of a config must satisfy. */
export function checkedConfig(config: ModelConfig): ModelConfig {
  const { heads, kvHeads, headDim } = config;
  if (heads % kvHeads !== 0) {
    throw unsupported('the number of KV heads', `a divisor of ${heads}`, String(kvHeads));
  }
  if (headDim % 2 !== 0) throw unsupported('the head dim', 'an even number', String(headDim));
  return config;
}

function readArchitecture(config: JsonFields): string {
  const type = config.text('model_type') ?? '';
  const architecture = ARCHITECTURES.get(type);
  if (architecture === undefined) {
    throw unsupported('model_type', [...ARCHITECTURES.keys()].join(', '), `'${type.slice(0, 80)}'`);
  }
  const activation = config.text('hidden_act') ?? 'silu';
  if (!SILU.includes(activation)) throw unsupported('hidden_act', 'silu', activation.slice(0, 80));
  if (config.has('sliding_window')) throw unsupported('sliding_window', 'none', 'set');
  if (config.has('quantization_config')) {
    throw unsupported('quantization_config', 'none (F32, F16 or BF16 weights)', 'set');
  }
  return architecture;
}

/**
 * Older files have rope_theta and rope_scaling, those of transformers 5 one dict rope_parameters; a file may have both,
 * and then the dict is the newer.
 */
function readRope(config: JsonFields): ModelConfig['rope'] {
  const parameters = config.object('rope_parameters');
  const scaling = config.has('rope_parameters') ? parameters : config.object('rope_scaling');
  const theta = parameters.has('rope_theta')
    ? parameters.positive('rope_theta')
    : config.positive('rope_theta', 10_000);
  for (const source of [config, parameters]) {
    const turned = source.positive('partial_rotary_factor', 1);
    if (turned !== 1) throw unsupported('partial_rotary_factor', '1', String(turned));
  }
  for (const perLayer of ['full_attention', 'sliding_attention']) {
    if (isObject(parameters.raw(perLayer))) {
      throw unsupported('rope_parameters', 'one set for all layers', 'one per layer type');
    }
  }
  return { theta, scaling: readScaling(scaling) };
}

function readScaling(scaling: JsonFields): RopeScaling | null {
  const type = scaling.text('rope_type') ?? scaling.text('type') ?? 'default';
  switch (type) {
    case 'default':
      return null;
    case 'linear':
      return { type, factor: scaling.positive('factor') };
    case 'llama3': {
      const low = scaling.positive('low_freq_factor');
      const high = scaling.positive('high_freq_factor');
      if (high <= low) throw scaling.wrong('high_freq_factor', `a number above ${low}`, high);
      return {
        type,
        factor: scaling.positive('factor'),
        lowFreqFactor: low,
        highFreqFactor: high,
        originalContext: scaling.integer('original_max_position_embeddings'),
      };
    }
    default:
      throw unsupported('RoPE scaling', 'default, linear, llama3', `'${type.slice(0, 80)}'`);
  }
}
