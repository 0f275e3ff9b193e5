/** ModelConfig from a Hugging Face config.json. Fields that a file leaves out take LlamaConfig's defaults. */
import { isObject, JsonFields, unsupported } from './json-fields';
import type { ModelConfig, RopeScaling } from './types';

/** model_type to architecture: a Mistral without a window computes what a Llama does. */
const ARCHITECTURES: ReadonlyMap<string, string> = new Map([
  ['llama', 'llama'],
  ['mistral', 'llama'],
]);

/** Our own field. */
export const LAYER_KV_HEADS = 'gqa_kv_heads';

/** Far beyond any model. */
const MAX_LAYERS = 2 ** 16;

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
  const layers = layerCount(config, 'num_hidden_layers', 32);
  const layerKvHeads = readLayerKvHeads(config, layers, heads);
  const eosTokenIds = [...config.ids('eos_token_id'), ...generation.ids('eos_token_id')];
  return checkedConfig({
    architecture,
    vocabSize: config.integer('vocab_size', 32_000),
    hiddenSize,
    intermediateSize: config.integer('intermediate_size', 11_008),
    layers,
    heads,
    kvHeads: Math.max(...layerKvHeads),
    layerKvHeads,
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

/** A number of layers, small enough for lists of what each of them has. */
export function layerCount(fields: JsonFields, name: string, fallback?: number): number {
  const layers = fields.integer(name, fallback);
  if (layers > MAX_LAYERS) throw fields.wrong(name, `at most ${MAX_LAYERS} layers`, layers);
  return layers;
}

/** What every source of a config must satisfy. */
export function checkedConfig(config: ModelConfig): ModelConfig {
  const { heads, layerKvHeads, headDim } = config;
  for (const kvHeads of layerKvHeads) {
    if (heads % kvHeads === 0) continue;
    throw unsupported('the number of KV heads', `a divisor of ${heads}`, String(kvHeads));
  }
  if (headDim % 2 !== 0) throw unsupported('the head dim', 'an even number', String(headDim));
  return config;
}

/** KV heads that the tensors of a folder have, in every layer. */
export function storedKvHeads(config: JsonFields): number {
  return config.integer('num_key_value_heads', config.integer('num_attention_heads', 32));
}

/** `gqa_kv_heads`: how many of a layer's stored KV heads are different ones, where layers differ (repeated-heads.ts). */
function readLayerKvHeads(config: JsonFields, layers: number, heads: number): number[] {
  const stored = storedKvHeads(config);
  if (heads % stored !== 0) {
    throw unsupported('the number of KV heads', `a divisor of ${heads}`, String(stored));
  }
  const counts = config.raw(LAYER_KV_HEADS);
  if (counts === undefined) return new Array<number>(layers).fill(stored);
  if (!Array.isArray(counts) || counts.length !== layers) {
    throw config.wrong(LAYER_KV_HEADS, `a list of ${layers} numbers`, counts);
  }
  return counts.map((count: unknown, layer) => {
    const name = `${LAYER_KV_HEADS}[${layer}]`;
    const kvHeads = new JsonFields('config.json', { [name]: count }).integer(name);
    if (stored % kvHeads === 0) return kvHeads;
    throw config.wrong(name, `a divisor of ${stored}`, count);
  });
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
