/** Qwen3: Llama with an RMSNorm over each head's query and key before RoPE; a head's dim is its own. */
import type { Precision } from '../../core/precision';
import { AttentionLayer } from '../../nn/attention-layer';
import { GatedMlp } from '../../nn/mlp';
import { Rope } from '../../nn/rope';
import { TransformerBlock } from '../../nn/transformer-block';
import { checkSilu, readCommon, type ConfigSource } from '../config';
import type { WindowedConfig } from '../config-windows';
import type { LanguageModel, WeightSource } from '../types';
import type { Architecture } from './architecture';
import { loadDecoder } from './llama-parts';
import { readQwenWindows } from './qwen2';

const DEFAULTS = {
  vocab_size: 151_936,
  intermediate_size: 22_016,
  head_dim: 128,
  max_position_embeddings: 32_768,
  sliding_window: 4096,
};

export const qwen3: Architecture<WindowedConfig> = {
  name: 'qwen3',
  modelTypes: ['qwen3'],
  readConfig,
  load,
};

function readConfig(source: ConfigSource): WindowedConfig {
  const fields = source.fields.withDefaults(DEFAULTS);
  checkSilu(fields);
  const config = readCommon('qwen3', { ...source, fields });
  return { ...config, layerWindows: readQwenWindows(fields, config.layers) };
}

function load(config: WindowedConfig, weights: WeightSource, precision: Precision): LanguageModel {
  const { hiddenSize, headDim, layerWindows } = config;
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
          queryNorm: layer.norm('self_attn.q_norm', headDim),
          keyNorm: layer.norm('self_attn.k_norm', headDim),
          rope,
          window: layerWindows[layer.index],
        }),
        new GatedMlp({
          norm: layer.norm('post_attention_layernorm'),
          ...layer.gatedMlp(),
          activation: 'silu',
        }),
      ),
    { rope },
  );
}
