/** What config.json says of every architecture. Fields that a file leaves out take LlamaConfig's defaults. */
import { ACTIVATIONS, type Activation } from '../nn/activation';
import { readRope, type RotaryDefaults } from './config-rope';
import { JsonFields, unsupported } from './json-fields';
import type { ModelConfig } from './types';

/** Our own field. */
export const LAYER_KV_HEADS = 'gqa_kv_heads';

/** Far beyond any model. */
const MAX_LAYERS = 2 ** 16;

/** HF's names of x * sigmoid(x). */
const SILU = ['silu', 'swish'];

/** What a config is read from. */
export interface ConfigSource {
  /** config.json */
  fields: JsonFields;
  /** generation_config.json, or an empty object; its end tokens count too. */
  generation: JsonFields;
  /** Whether the checkpoint has the tensor: decides what a config does not state. */
  hasTensor: (name: string) => boolean;
}

/**
 * What most architectures call alike.
 * @throws GqaError INVALID_FILE, UNSUPPORTED_MODEL
 */
export function readCommon(
  architecture: string,
  source: ConfigSource,
  rotary: RotaryDefaults = {},
): ModelConfig {
  const { fields: config, generation, hasTensor } = source;
  checkUnquantised(config);
  const hiddenSize = config.integer('hidden_size', 4096);
  const heads = config.integer('num_attention_heads', 32);
  const layers = layerCount(config, 'num_hidden_layers', 32);
  const layerKvHeads = readLayerKvHeads(config, layers, heads);
  const headDim = config.integer('head_dim', hiddenSize / heads);
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
    headDim,
    rmsNormEps: config.positive('rms_norm_eps', 1e-6),
    rope: readRope(config, headDim, rotary),
    contextLength: config.integer('max_position_embeddings', 2048),
    tiedEmbeddings: config.flag('tie_word_embeddings', !hasTensor('lm_head.weight')),
    attentionBias: config.flag('attention_bias', false),
    mlpBias: config.flag('mlp_bias', false),
    bosTokenId: config.ids('bos_token_id')[0] ?? null,
    eosTokenIds: [...new Set(eosTokenIds)],
  });
}

/** @throws GqaError UNSUPPORTED_MODEL for weights in a format of their own. */
export function checkUnquantised(config: JsonFields): void {
  if (!config.has('quantization_config')) return;
  throw unsupported('quantization_config', 'none (F32, F16 or BF16 weights)', 'set');
}

/** @throws GqaError UNSUPPORTED_MODEL */
export function checkSilu(config: JsonFields): void {
  const activation = config.text('hidden_act') ?? 'silu';
  if (!SILU.includes(activation)) throw unsupported('hidden_act', 'silu', activation.slice(0, 80));
}

/** The activation function that a field names. @throws GqaError INVALID_FILE, UNSUPPORTED_MODEL */
export function readActivation(config: JsonFields, name: string, usual: string): Activation {
  const activation = config.text(name) ?? usual;
  if (Object.hasOwn(ACTIVATIONS, activation)) return ACTIVATIONS[activation];
  throw unsupported(name, Object.keys(ACTIVATIONS).join(', '), `'${activation.slice(0, 80)}'`);
}

/** @throws GqaError UNSUPPORTED_MODEL */
export function checkUnwindowed(config: JsonFields): void {
  if (config.has('sliding_window')) throw unsupported('sliding_window', 'none', 'set');
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
