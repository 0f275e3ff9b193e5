/** Qwen2 and 2.5: Llama with biases on queries, keys and values; the upper layers may have a window. */
import type { Precision } from '../../core/precision';
import { AttentionLayer } from '../../nn/attention-layer';
import { GatedMlp } from '../../nn/mlp';
import { Rope } from '../../nn/rope';
import { TransformerBlock } from '../../nn/transformer-block';
import { checkSilu, readCommon, type ConfigSource } from '../config';
import { readLayerWindows, type LayerWindows, type WindowedConfig } from '../config-windows';
import type { JsonFields } from '../json-fields';
import type { LanguageModel, WeightSource } from '../types';
import type { Architecture } from './architecture';
import { loadDecoder } from './llama-parts';

const DEFAULTS = {
  vocab_size: 151_936,
  intermediate_size: 22_016,
  max_position_embeddings: 32_768,
  sliding_window: 4096,
};

export const qwen2: Architecture<WindowedConfig> = {
  name: 'qwen2',
  modelTypes: ['qwen2'],
  readConfig,
  load,
};

function readConfig(source: ConfigSource): WindowedConfig {
  const fields = source.fields.withDefaults(DEFAULTS);
  checkSilu(fields);
  const config = readCommon('qwen2', { ...source, fields });
  return { ...config, layerWindows: readQwenWindows(fields, config.layers) };
}

/** Only with `use_sliding_window`, and then from layer `max_window_layers` on. */
export function readQwenWindows(fields: JsonFields, layers: number): LayerWindows {
  if (!fields.flag('use_sliding_window', false)) return new Array<null>(layers).fill(null);
  const first = fields.integer('max_window_layers', 28, 0);
  return readLayerWindows(fields, layers, (layer) => layer >= first);
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
          ...layer.projections({ queryKeyValue: true, output: false }),
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
