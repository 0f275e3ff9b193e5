/** config.json as transformers reads it, from GGUF metadata, and with other numbers of KV heads. */
import type { GgufFile } from '../../format/gguf';
import { Rope, type RopeScaling } from '../../nn/rope';
import { LAYER_KV_HEADS } from '../config';
import { type JsonObject, unsupported } from '../json-fields';
import type { ModelConfig } from '../types';

/** Llama 3's own numbers: GGUF keeps what they make of the frequencies, not them. */
const LLAMA3 = { lowFreqFactor: 1, highFreqFactor: 4, originalContext: 8192 } as const;
/** Relative difference of two frequencies that are one: GGUF's divisors are f32. */
const SAME_FREQUENCY = 1e-5;

/** @throws GqaError UNSUPPORTED_MODEL where the RoPE scaling has no words in config.json */
export function configJsonOfGguf(file: GgufFile, config: ModelConfig): JsonObject {
  const { eosTokenIds } = config;
  return {
    architectures: ['LlamaForCausalLM'],
    model_type: 'llama',
    vocab_size: config.vocabSize,
    hidden_size: config.hiddenSize,
    intermediate_size: config.intermediateSize,
    num_hidden_layers: config.layers,
    num_attention_heads: config.heads,
    num_key_value_heads: config.kvHeads,
    head_dim: config.headDim,
    hidden_act: 'silu',
    rms_norm_eps: shortest(config.rmsNormEps),
    rope_theta: shortest(config.rope.theta),
    rope_scaling: scalingJson(file, config),
    max_position_embeddings: config.contextLength,
    tie_word_embeddings: config.tiedEmbeddings,
    attention_bias: config.attentionBias,
    mlp_bias: config.mlpBias,
    bos_token_id: config.bosTokenId,
    eos_token_id: eosTokenIds.length === 1 ? eosTokenIds[0] : eosTokenIds,
  };
}

/** The same config with these KV heads, `stored` of them in each layer's tensors. */
export function withKvHeads(
  json: JsonObject,
  layerKvHeads: readonly number[],
  stored: number,
): JsonObject {
  const uniform = layerKvHeads.every((kvHeads) => kvHeads === stored);
  // JSON leaves undefined out.
  const counts = uniform ? undefined : layerKvHeads;
  return { ...json, num_key_value_heads: stored, [LAYER_KV_HEADS]: counts };
}

/** The shortest decimal that is the same f32: 1e-5, not 0.000009999999747378752. */
function shortest(x: number): number {
  for (let digits = 1; digits < 9; digits++) {
    const short = Number(x.toPrecision(digits));
    if (Math.fround(short) === Math.fround(x)) return short;
  }
  return x;
}

function scalingJson(file: GgufFile, config: ModelConfig): JsonObject | null {
  const { scaling } = config.rope;
  if (scaling === null) return null;
  if (scaling.type === 'linear') return { rope_type: 'linear', factor: scaling.factor };
  if (scaling.type === 'yarn') throw unsupported('RoPE scaling', 'linear, llama3', 'yarn');
  const rule = scaling.type === 'llama3' ? scaling : llama3Of(file, config, scaling.factors);
  return {
    rope_type: 'llama3',
    factor: rule.factor,
    low_freq_factor: rule.lowFreqFactor,
    high_freq_factor: rule.highFreqFactor,
    original_max_position_embeddings: rule.originalContext,
  };
}

/** The rule of Llama 3 that makes these divisors. */
function llama3Of(
  file: GgufFile,
  { headDim, rope: { theta } }: ModelConfig,
  factors: readonly number[],
): RopeScaling & { type: 'llama3' } {
  const stated = file.metadata.get('llama.rope.scaling.original_context_length');
  const originalContext = typeof stated === 'number' ? stated : LLAMA3.originalContext;
  // The slowest wave has the whole factor.
  const factor = shortest(Math.max(...factors));
  const rule = { type: 'llama3', factor, ...LLAMA3, originalContext } as const;
  const frequencies = (scaling: RopeScaling): Float64Array =>
    new Rope({ headDim, theta, scaling }).frequencies;
  const wanted = frequencies({ type: 'factors', factors });
  const made = frequencies(rule);
  if (wanted.every((f, r) => Math.abs(made[r] / f - 1) < SAME_FREQUENCY)) return rule;
  throw unsupported('rope_freqs.weight in config.json', "Llama 3's rule", 'another rule');
}
