/**
 * Phi-3, 3.5 and Phi-4-mini: Llama with queries, keys and values stored as one matrix, gate and up as another; part of a
 * head may be turned. LongRoPE has two sets of divisors of the frequencies. A model turns all its tokens by one of them:
 * the long set where its context is longer than the original one. (transformers takes the short set for texts that fit the
 * original context, and computes all keys anew when a text outgrows it.)
 */
import type { Precision } from '../../core/precision';
import { AttentionLayer } from '../../nn/attention-layer';
import { GatedMlp } from '../../nn/mlp';
import { Rope } from '../../nn/rope';
import { TransformerBlock } from '../../nn/transformer-block';
import { checkSilu, readCommon, type ConfigSource } from '../config';
import { readFactors } from '../config-rope';
import { readLayerWindows, type WindowedConfig } from '../config-windows';
import type { JsonFields } from '../json-fields';
import type { LanguageModel, WeightSource } from '../types';
import type { Architecture } from './architecture';
import { loadDecoder, type LlamaLayer } from './llama-parts';

export interface Phi3Config extends WindowedConfig {
  /** Divisors of the frequencies for contexts up to `originalContext` tokens; null where they are the same for all. */
  shortFactors: readonly number[] | null;
  originalContext: number;
}

const DEFAULTS = {
  vocab_size: 32_064,
  hidden_size: 3072,
  intermediate_size: 8192,
  rms_norm_eps: 1e-5,
  max_position_embeddings: 4096,
};

export const phi3: Architecture<Phi3Config> = {
  name: 'phi3',
  modelTypes: ['phi3'],
  readConfig,
  load,
};

function readConfig(source: ConfigSource): Phi3Config {
  const fields = source.fields.withDefaults(DEFAULTS);
  checkSilu(fields);
  const config = readCommon('phi3', { ...source, fields }, { partialRotary: 1 });
  const { rotaryDim = config.headDim } = config.rope;
  return {
    ...config,
    layerWindows: readLayerWindows(fields, config.layers, () => true),
    shortFactors: readShortFactors(fields, rotaryDim / 2),
    originalContext: fields.integer('original_max_position_embeddings', config.contextLength),
  };
}

/** Of LongRoPE, both of whose lists must have a divisor for each pair that is turned. */
function readShortFactors(fields: JsonFields, pairs: number): number[] | null {
  const name = fields.has('rope_parameters') ? 'rope_parameters' : 'rope_scaling';
  const scaling = fields.object(name);
  if (!scaling.has('long_factor')) return null;
  const [short] = ['short_factor', 'long_factor'].map((list) => {
    const factors = readFactors(scaling, list);
    if (factors.length === pairs) return factors;
    throw scaling.wrong(list, `${pairs} numbers`, factors);
  });
  return short;
}

function ropeOf({ headDim, rope, contextLength, originalContext, shortFactors }: Phi3Config): Rope {
  const { scaling } = rope;
  const short = shortFactors !== null && contextLength <= originalContext;
  if (!short || scaling?.type !== 'factors') return new Rope({ headDim, ...rope });
  return new Rope({ headDim, ...rope, scaling: { ...scaling, factors: shortFactors } });
}

function load(config: Phi3Config, weights: WeightSource, precision: Precision): LanguageModel {
  const { hiddenSize, headDim, layerWindows } = config;
  const rope = ropeOf(config);
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
          ...projections(config, layer),
          rope,
          window: layerWindows[layer.index],
        }),
        new GatedMlp({
          norm: layer.norm('post_attention_layernorm'),
          ...gatedMlp(config, layer),
          activation: 'silu',
        }),
      ),
    { rope },
  );
}

function projections(config: Phi3Config, layer: LlamaLayer) {
  const { hiddenSize, heads, layerKvHeads, headDim } = config;
  const [queries, keys] = [heads * headDim, layerKvHeads[layer.index] * headDim];
  const outs = [queries, keys, keys];
  const [query, key, value] = layer.stacked('self_attn.qkv_proj', outs, hiddenSize);
  return { query, key, value, output: layer.linear('self_attn.o_proj', hiddenSize, queries) };
}

function gatedMlp({ hiddenSize, intermediateSize }: Phi3Config, layer: LlamaLayer) {
  const outs = [intermediateSize, intermediateSize];
  const [gate, up] = layer.stacked('mlp.gate_up_proj', outs, hiddenSize);
  return { gate, up, down: layer.linear('mlp.down_proj', hiddenSize, intermediateSize) };
}
