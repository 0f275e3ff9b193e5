/**
 * GPT-BigCode, StarCoder's first: one KV head (multi_query), learned positions, layer norms, biases everywhere, an MLP without
 * a gate.
 */
import type { Precision } from '../../core/precision';
import type { Activation } from '../../nn/activation';
import { AttentionLayer } from '../../nn/attention-layer';
import { Mlp } from '../../nn/mlp';
import { TransformerBlock } from '../../nn/transformer-block';
import { readActivation, readCommon, type ConfigSource } from '../config';
import { Decoder } from '../decoder';
import { groupedRows, LayerSource, stackedRows } from '../layer-source';
import type { LanguageModel, ModelConfig, WeightSource } from '../types';
import type { Architecture } from './architecture';

export interface GptBigCodeConfig extends ModelConfig {
  activation: Activation;
  layerNormEps: number;
  /** What scores are multiplied by. */
  attentionScale: number;
}

export const gptBigCode: Architecture<GptBigCodeConfig> = {
  name: 'gpt_bigcode',
  modelTypes: ['gpt_bigcode'],
  readConfig,
  load,
};

function readConfig(source: ConfigSource): GptBigCodeConfig {
  const named = source.fields.renamed({
    hidden_size: 'n_embd',
    num_attention_heads: 'n_head',
    num_hidden_layers: 'n_layer',
    intermediate_size: 'n_inner',
    max_position_embeddings: 'n_positions',
  });
  const hiddenSize = named.integer('hidden_size', 768);
  const heads = named.integer('num_attention_heads', 12);
  const fields = named.with({
    num_key_value_heads: named.flag('multi_query', true) ? 1 : heads,
    intermediate_size: named.integer('intermediate_size', 4 * hiddenSize),
  });
  const common = readCommon('gpt_bigcode', { ...source, fields });
  return {
    ...common,
    attentionBias: true,
    mlpBias: true,
    tiedEmbeddings: fields.flag('tie_word_embeddings', true),
    activation: readActivation(fields, 'activation_function', 'gelu_pytorch_tanh'),
    layerNormEps: fields.positive('layer_norm_epsilon', 1e-5),
    attentionScale: fields.flag('scale_attn_weights', true) ? common.headDim ** -0.5 : 1,
  };
}

function load(
  config: GptBigCodeConfig,
  weights: WeightSource,
  precision: Precision,
): LanguageModel {
  const { hiddenSize, vocabSize, contextLength, layerNormEps } = config;
  const source = new LayerSource(weights);
  const embedding = source.linear('transformer.wte', vocabSize, hiddenSize);
  const positionEmbedding = source.linear('transformer.wpe', contextLength, hiddenSize);
  const blocks = Array.from({ length: config.layers }, (_, layer) =>
    loadBlock(config, source, `transformer.h.${layer}`),
  );
  const norm = source.layerNorm('transformer.ln_f', hiddenSize, layerNormEps);
  const head = config.tiedEmbeddings ? embedding : source.linear('lm_head', vocabSize, hiddenSize);
  const parts = { embedding, positionEmbedding, blocks, norm, head, rope: null };
  return new Decoder(config, parts, precision);
}

function loadBlock(
  config: GptBigCodeConfig,
  source: LayerSource,
  prefix: string,
): TransformerBlock {
  const { hiddenSize, intermediateSize, heads, kvHeads, headDim, layerNormEps } = config;
  const norm = (name: string) => source.layerNorm(`${prefix}.${name}`, hiddenSize, layerNormEps);
  // Without multi-query each head's query, key and value lie together.
  const rows =
    kvHeads === 1
      ? stackedRows([heads * headDim, headDim, headDim])
      : groupedRows(heads, kvHeads, headDim);
  const [query, key, value] = source.linears(`${prefix}.attn.c_attn`, rows, hiddenSize, true);
  const attention = new AttentionLayer({
    headDim,
    norm: norm('ln_1'),
    query,
    key,
    value,
    output: source.linear(`${prefix}.attn.c_proj`, hiddenSize, heads * headDim, true),
    rope: null,
    features: { scale: config.attentionScale },
  });
  const mlp = new Mlp({
    norm: norm('ln_2'),
    up: source.linear(`${prefix}.mlp.c_fc`, intermediateSize, hiddenSize, true),
    down: source.linear(`${prefix}.mlp.c_proj`, hiddenSize, intermediateSize, true),
    activation: config.activation,
  });
  return new TransformerBlock(hiddenSize, attention, mlp);
}
