/**
 * GPT-NeoX, and so Pythia: as many KV heads as heads, layer norms, RoPE on a part of each head, an MLP without a gate, and
 * attention and MLP beside each other (use_parallel_residual) or one after the other. The projection of a layer holds query,
 * key and value of a head side by side.
 */
import type { Precision } from '../../core/precision';
import type { Activation } from '../../nn/activation';
import { AttentionLayer } from '../../nn/attention-layer';
import { Mlp } from '../../nn/mlp';
import { Rope } from '../../nn/rope';
import { ParallelBlock, TransformerBlock, type Block } from '../../nn/transformer-block';
import { readActivation, readCommon, type ConfigSource } from '../config';
import { Decoder } from '../decoder';
import { groupedRows, LayerSource } from '../layer-source';
import type { LanguageModel, ModelConfig, WeightSource } from '../types';
import type { Architecture } from './architecture';

export interface GptNeoxConfig extends ModelConfig {
  activation: Activation;
  layerNormEps: number;
  parallelResidual: boolean;
}

export const gptNeox: Architecture<GptNeoxConfig> = {
  name: 'gpt_neox',
  modelTypes: ['gpt_neox'],
  readConfig,
  load,
};

function readConfig(source: ConfigSource): GptNeoxConfig {
  const fields = source.fields.renamed({
    partial_rotary_factor: 'rotary_pct',
    rope_theta: 'rotary_emb_base',
  });
  const common = readCommon('gpt_neox', { ...source, fields }, { partialRotary: 0.25 });
  return {
    ...common,
    attentionBias: fields.flag('attention_bias', true),
    tiedEmbeddings: fields.flag('tie_word_embeddings', false),
    activation: readActivation(fields, 'hidden_act', 'gelu'),
    layerNormEps: fields.positive('layer_norm_eps', 1e-5),
    parallelResidual: fields.flag('use_parallel_residual', true),
  };
}

function load(config: GptNeoxConfig, weights: WeightSource, precision: Precision): LanguageModel {
  const { hiddenSize, vocabSize, headDim } = config;
  const source = new LayerSource(weights);
  const embedding = source.linear('gpt_neox.embed_in', vocabSize, hiddenSize);
  const rope = new Rope({ headDim, ...config.rope });
  const blocks = Array.from({ length: config.layers }, (_, layer) =>
    loadBlock(config, source, `gpt_neox.layers.${layer}`, rope),
  );
  const norm = source.layerNorm('gpt_neox.final_layer_norm', hiddenSize, config.layerNormEps);
  const head = config.tiedEmbeddings
    ? embedding
    : source.linear('embed_out', vocabSize, hiddenSize);
  return new Decoder(config, { embedding, blocks, norm, head, rope }, precision);
}

function loadBlock(config: GptNeoxConfig, source: LayerSource, prefix: string, rope: Rope): Block {
  const { hiddenSize, intermediateSize, heads, headDim, layerNormEps, attentionBias } = config;
  const norm = (name: string) => source.layerNorm(`${prefix}.${name}`, hiddenSize, layerNormEps);
  const [query, key, value] = source.linears(
    `${prefix}.attention.query_key_value`,
    groupedRows(heads, heads, headDim),
    hiddenSize,
    attentionBias,
  );
  const attention = new AttentionLayer({
    headDim,
    norm: norm('input_layernorm'),
    query,
    key,
    value,
    output: source.linear(`${prefix}.attention.dense`, hiddenSize, heads * headDim, attentionBias),
    rope,
  });
  const mlp = new Mlp({
    norm: norm('post_attention_layernorm'),
    up: source.linear(`${prefix}.mlp.dense_h_to_4h`, intermediateSize, hiddenSize, true),
    down: source.linear(`${prefix}.mlp.dense_4h_to_h`, hiddenSize, intermediateSize, true),
    activation: config.activation,
  });
  return config.parallelResidual
    ? new ParallelBlock(hiddenSize, attention, mlp)
    : new TransformerBlock(hiddenSize, attention, mlp);
}
