/** Mixtral: Mistral with a mixture of experts in the place of each MLP. */
import type { Precision } from '../../core/precision';
import { AttentionLayer } from '../../nn/attention-layer';
import { MoE, type Expert } from '../../nn/moe';
import { Rope } from '../../nn/rope';
import { TransformerBlock } from '../../nn/transformer-block';
import { checkSilu, readCommon, type ConfigSource } from '../config';
import { readLayerWindows, type WindowedConfig } from '../config-windows';
import type { LanguageModel, WeightSource } from '../types';
import type { Architecture } from './architecture';
import { loadDecoder, type LlamaLayer } from './llama-parts';

export interface MixtralConfig extends WindowedConfig {
  experts: number;
  expertsPerToken: number;
}

const DEFAULTS = {
  intermediate_size: 14_336,
  num_key_value_heads: 8,
  max_position_embeddings: 131_072,
  rms_norm_eps: 1e-5,
};

export const mixtral: Architecture<MixtralConfig> = {
  name: 'mixtral',
  modelTypes: ['mixtral'],
  readConfig,
  load,
};

function readConfig(source: ConfigSource): MixtralConfig {
  const fields = source.fields.withDefaults(DEFAULTS);
  checkSilu(fields);
  const config = readCommon('mixtral', { ...source, fields }, { theta: 1e6 });
  const experts = fields.integer('num_local_experts', 8);
  const expertsPerToken = fields.integer('num_experts_per_tok', 2);
  if (expertsPerToken > experts) {
    throw fields.wrong('num_experts_per_tok', `at most ${experts}`, expertsPerToken);
  }
  const layerWindows = readLayerWindows(fields, config.layers, () => true);
  return { ...config, layerWindows, experts, expertsPerToken };
}

function load(config: MixtralConfig, weights: WeightSource, precision: Precision): LanguageModel {
  const { hiddenSize, headDim, layerWindows, experts, expertsPerToken } = config;
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
          rope,
          window: layerWindows[layer.index],
        }),
        new MoE({
          norm: layer.norm('post_attention_layernorm'),
          router: layer.linear('block_sparse_moe.gate', experts, hiddenSize),
          experts: Array.from({ length: experts }, (_, i) => loadExpert(config, layer, i)),
          expertsPerToken,
          activation: 'silu',
        }),
      ),
    { rope },
  );
}

function loadExpert(
  { hiddenSize, intermediateSize }: MixtralConfig,
  layer: LlamaLayer,
  index: number,
): Expert {
  const name = `block_sparse_moe.experts.${index}`;
  return {
    gate: layer.linear(`${name}.w1`, intermediateSize, hiddenSize),
    up: layer.linear(`${name}.w3`, intermediateSize, hiddenSize),
    down: layer.linear(`${name}.w2`, hiddenSize, intermediateSize),
  };
}
