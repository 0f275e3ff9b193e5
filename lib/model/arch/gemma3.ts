/**
 * Gemma 3, text: Gemma 2 with norms over each head's query and key, without softcaps as a rule; every sixth layer sees all
 * keys, turned by a slower RoPE, the others a window. Of a multimodal checkpoint its language model is read.
 */
import type { Precision } from '../../core/precision';
import { AttentionLayer } from '../../nn/attention-layer';
import { GatedMlp } from '../../nn/mlp';
import { Rope } from '../../nn/rope';
import { TransformerBlock } from '../../nn/transformer-block';
import { checkUnquantised, readCommon, type ConfigSource } from '../config';
import { readScaling } from '../config-rope';
import { readLayerWindows } from '../config-windows';
import type { JsonFields } from '../json-fields';
import type { LanguageModel, ModelConfig, WeightSource } from '../types';
import type { Architecture } from './architecture';
import { attentionFeatures, readGemma, type Gemma2Config } from './gemma2';
import { loadDecoder } from './llama-parts';

/** `rope` turns the layers without a window. */
export interface Gemma3Config extends Gemma2Config {
  localRope: ModelConfig['rope'];
}

const DEFAULTS = {
  vocab_size: 262_208,
  hidden_size: 2304,
  intermediate_size: 9216,
  num_hidden_layers: 26,
  num_attention_heads: 8,
  num_key_value_heads: 4,
  head_dim: 256,
  max_position_embeddings: 131_072,
  tie_word_embeddings: true,
  sliding_window: 4096,
};

/** What the tensors of the language model begin with: by itself, and in multimodal checkpoints old and new. */
const ROOTS = ['model', 'language_model.model', 'model.language_model'];

export const gemma3: Architecture<Gemma3Config> = {
  name: 'gemma3',
  modelTypes: ['gemma3_text', 'gemma3'],
  readConfig,
  load,
};

function readConfig(source: ConfigSource): Gemma3Config {
  const fields = textFields(source.fields).withDefaults(DEFAULTS);
  const ropes = readRopes(fields);
  // They are read already, one for each type of layer.
  const plain = fields.with({ rope_parameters: null, rope_scaling: null });
  const config = readCommon('gemma3', { ...source, fields: plain });
  const pattern = fields.integer('sliding_window_pattern', 6);
  return {
    ...config,
    ...readGemma(fields),
    ...ropes,
    layerWindows: readLayerWindows(fields, config.layers, (layer) => (layer + 1) % pattern !== 0),
  };
}

/** Those of the language model. */
function textFields(fields: JsonFields): JsonFields {
  if (!fields.has('text_config')) return fields;
  checkUnquantised(fields);
  return fields.object('text_config').withDefaults({
    bos_token_id: fields.raw('bos_token_id'),
    eos_token_id: fields.raw('eos_token_id'),
  });
}

/** Older files have fields of their own for the local layers; those of transformers 5 an object for each type of layer. */
function readRopes(fields: JsonFields): Pick<Gemma3Config, 'rope' | 'localRope'> {
  const types = fields.object('rope_parameters');
  const [global, local] = [types.object('full_attention'), types.object('sliding_attention')];
  const scaling = fields.has('rope_scaling') ? fields.object('rope_scaling') : global;
  return {
    rope: {
      theta: global.positive('rope_theta', fields.positive('rope_theta', 1e6)),
      scaling: readScaling(scaling, fields),
    },
    localRope: {
      theta: local.positive('rope_theta', fields.positive('rope_local_base_freq', 1e4)),
      scaling: readScaling(local, fields),
    },
  };
}

function load(config: Gemma3Config, weights: WeightSource, precision: Precision): LanguageModel {
  const { hiddenSize, headDim, layerWindows, activation, logitSoftcap } = config;
  const rope = new Rope({ headDim, ...config.rope });
  const localRope = new Rope({ headDim, ...config.localRope });
  const root = ROOTS.find((name) => weights.has(`${name}.embed_tokens.weight`));
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
          outputNorm: layer.norm('post_attention_layernorm'),
          rope: layerWindows[layer.index] === null ? rope : localRope,
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
    // Two rotations cannot be the cache's.
    { rope: null, embeddingScale: Math.sqrt(hiddenSize), logitSoftcap },
    { root, normOffset: 1 },
  );
}
