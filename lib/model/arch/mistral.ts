/** Mistral: Llama, each token of which sees a window of the newest keys only. Without a window it is a Llama. */
import type { Precision } from '../../core/precision';
import { AttentionLayer } from '../../nn/attention-layer';
import { GatedMlp } from '../../nn/mlp';
import { Rope } from '../../nn/rope';
import { TransformerBlock } from '../../nn/transformer-block';
import { checkSilu, readCommon, type ConfigSource } from '../config';
import { readLayerWindows, type WindowedConfig } from '../config-windows';
import type { LanguageModel, ModelConfig, WeightSource } from '../types';
import type { Architecture } from './architecture';
import { llama } from './llama';
import { loadDecoder } from './llama-parts';

export const mistral: Architecture = {
  name: 'mistral',
  modelTypes: ['mistral'],
  readConfig,
  load: (config, weights, precision) => load(config as WindowedConfig, weights, precision),
};

function readConfig(source: ConfigSource): ModelConfig {
  const { fields } = source;
  if (!fields.has('sliding_window')) return llama.readConfig(source);
  checkSilu(fields);
  const config = readCommon('mistral', source);
  const windowed: WindowedConfig = {
    ...config,
    layerWindows: readLayerWindows(fields, config.layers, () => true),
  };
  return windowed;
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
