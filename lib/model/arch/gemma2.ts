/**
 * Gemma 2: norms of x * (1 + w) before and after attention and MLP, scores and logits under a softcap, windows in every
 * other layer from the first on, embeddings scaled by the root of their width.
 */
import type { Precision } from '../../core/precision';
import type { Activation } from '../../nn/activation';
import { AttentionLayer } from '../../nn/attention-layer';
import { GatedMlp } from '../../nn/mlp';
import { Rope } from '../../nn/rope';
import { TransformerBlock } from '../../nn/transformer-block';
import { readActivation, readCommon, type ConfigSource } from '../config';
import { readLayerWindows, type WindowedConfig } from '../config-windows';
import { unsupported, type JsonFields } from '../json-fields';
import type { LanguageModel, WeightSource } from '../types';
import type { Architecture } from './architecture';
import { loadDecoder } from './llama-parts';

export interface Gemma2Config extends WindowedConfig {
  activation: Activation;
  /** Scores are q.k / sqrt(queryScale). */
  queryScale: number;
  attentionSoftcap: number | null;
  logitSoftcap: number | null;
}

const DEFAULTS = {
  vocab_size: 256_000,
  hidden_size: 2304,
  intermediate_size: 9216,
  num_hidden_layers: 26,
  num_attention_heads: 8,
  num_key_value_heads: 4,
  head_dim: 256,
  max_position_embeddings: 8192,
  tie_word_embeddings: true,
  sliding_window: 4096,
  attn_logit_softcapping: 50,
  final_logit_softcapping: 30,
};

export const gemma2: Architecture<Gemma2Config> = {
  name: 'gemma2',
  modelTypes: ['gemma2'],
  readConfig,
  load,
};

function readConfig(source: ConfigSource): Gemma2Config {
  const fields = source.fields.withDefaults(DEFAULTS);
  const config = readCommon('gemma2', { ...source, fields });
  const layerWindows = readLayerWindows(fields, config.layers, (layer) => layer % 2 === 0);
  return { ...config, ...readGemma(fields), layerWindows };
}

/** What Gemma 2 and 3 call alike. @throws GqaError INVALID_FILE, UNSUPPORTED_MODEL */
export function readGemma(fields: JsonFields): Omit<Gemma2Config, keyof WindowedConfig> {
  if (fields.flag('use_bidirectional_attention', false)) {
    throw unsupported('use_bidirectional_attention', 'false', 'true');
  }
  const softcap = (name: string): number | null =>
    fields.has(name) ? fields.positive(name) : null;
  return {
    activation: readActivation(fields, 'hidden_activation', 'gelu_pytorch_tanh'),
    queryScale: fields.positive('query_pre_attn_scalar', 256),
    attentionSoftcap: softcap('attn_logit_softcapping'),
    logitSoftcap: softcap('final_logit_softcapping'),
  };
}

function load(config: Gemma2Config, weights: WeightSource, precision: Precision): LanguageModel {
  const { hiddenSize, headDim, layerWindows, activation, logitSoftcap } = config;
  const rope = new Rope({ headDim, ...config.rope });
  return loadDecoder(
    config,
    weights,
    precision,
    (layer) =>
      new TransformerBlock(
        hiddenSize,
        new AttentionLayer({
          headDim,
          norm: layer.norm('input_layernorm'),
          ...layer.projections(),
          outputNorm: layer.norm('post_attention_layernorm'),
          rope,
          window: layerWindows[layer.index],
          features: attentionFeatures(config),
        }),
        new GatedMlp({
          norm: layer.norm('pre_feedforward_layernorm'),
          ...layer.gatedMlp(),
          outputNorm: layer.norm('post_feedforward_layernorm'),
          activation,
        }),
      ),
    { rope, embeddingScale: Math.sqrt(hiddenSize), logitSoftcap },
    { normOffset: 1 },
  );
}

export function attentionFeatures({ queryScale, attentionSoftcap }: Gemma2Config) {
  return { scale: 1 / Math.sqrt(queryScale), softcap: attentionSoftcap ?? 0 };
}
