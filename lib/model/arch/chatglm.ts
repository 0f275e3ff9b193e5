/**
 * ChatGLM2 and 3, and GLM-4-9B in its first form: what `glm` computes, under names of their own. Two KV heads, biases of
 * queries, keys and values, RoPE of neighbouring pairs on half of each head, gate and up projection in one matrix.
 */
import type { Precision } from '../../core/precision';
import { AttentionLayer } from '../../nn/attention-layer';
import { GatedMlp } from '../../nn/mlp';
import { Rope } from '../../nn/rope';
import { TransformerBlock } from '../../nn/transformer-block';
import { readCommon, type ConfigSource } from '../config';
import { Decoder } from '../decoder';
import { unsupported, type JsonFields } from '../json-fields';
import { LayerSource, stackedRows } from '../layer-source';
import type { LanguageModel, ModelConfig, WeightSource } from '../types';
import type { Architecture } from './architecture';

export const chatGlm: Architecture = {
  name: 'chatglm',
  modelTypes: ['chatglm'],
  readConfig,
  load,
};

/** What every model of this form says, with what fields are when they are not said; the first ChatGLM is another model. */
const REQUIRED: readonly (readonly [name: string, value: boolean, usual: boolean])[] = [
  ['position_encoding_2d', false, false],
  ['rmsnorm', true, true],
  ['post_layer_norm', true, true],
  ['apply_residual_connection_post_layernorm', false, false],
];

function readConfig(source: ConfigSource): ModelConfig {
  for (const [name, value, usual] of REQUIRED) {
    const found = source.fields.flag(name, usual);
    if (found !== value) throw unsupported(name, String(value), String(found));
  }
  const named = source.fields.renamed({
    num_hidden_layers: 'num_layers',
    vocab_size: 'padded_vocab_size',
    intermediate_size: 'ffn_hidden_size',
    head_dim: 'kv_channels',
    max_position_embeddings: 'seq_length',
    rms_norm_eps: 'layernorm_epsilon',
  });
  const fields = named.with({
    num_key_value_heads: kvHeads(named),
    rope_theta: 10_000 * named.positive('rope_ratio', 1),
  });
  const common = readCommon('chatglm', { ...source, fields }, { partialRotary: 0.5 });
  const bias = fields.flag('add_bias_linear', false);
  return {
    ...common,
    tiedEmbeddings: fields.flag('tie_word_embeddings', false),
    attentionBias: bias || fields.flag('add_qkv_bias', false),
    mlpBias: bias,
  };
}

function kvHeads(fields: JsonFields): number {
  const heads = fields.integer('num_attention_heads', 32);
  if (!fields.flag('multi_query_attention', false)) return heads;
  return fields.integer('multi_query_group_num', 1);
}

function load(config: ModelConfig, weights: WeightSource, precision: Precision): LanguageModel {
  const { hiddenSize, vocabSize, headDim, rmsNormEps } = config;
  const source = new LayerSource(weights);
  const embedding = source.linear('transformer.embedding.word_embeddings', vocabSize, hiddenSize);
  const rope = new Rope({ headDim, ...config.rope, interleaved: true });
  const blocks = Array.from({ length: config.layers }, (_, layer) =>
    loadBlock(config, source, `transformer.encoder.layers.${layer}`, rope),
  );
  const norm = source.rmsNorm('transformer.encoder.final_layernorm', hiddenSize, rmsNormEps);
  const head = config.tiedEmbeddings
    ? embedding
    : source.linear('transformer.output_layer', vocabSize, hiddenSize);
  return new Decoder(config, { embedding, blocks, norm, head, rope }, precision);
}

function loadBlock(
  config: ModelConfig,
  source: LayerSource,
  prefix: string,
  rope: Rope,
): TransformerBlock {
  const { hiddenSize, intermediateSize, heads, kvHeads, headDim, rmsNormEps, mlpBias } = config;
  const [query, key, value] = source.linears(
    `${prefix}.self_attention.query_key_value`,
    stackedRows([heads * headDim, kvHeads * headDim, kvHeads * headDim]),
    hiddenSize,
    config.attentionBias,
  );
  const attention = new AttentionLayer({
    headDim,
    norm: source.rmsNorm(`${prefix}.input_layernorm`, hiddenSize, rmsNormEps),
    query,
    key,
    value,
    output: source.linear(`${prefix}.self_attention.dense`, hiddenSize, heads * headDim, mlpBias),
    rope,
  });
  const halves = stackedRows([intermediateSize, intermediateSize]);
  const [gate, up] = source.linears(`${prefix}.mlp.dense_h_to_4h`, halves, hiddenSize, mlpBias);
  const mlp = new GatedMlp({
    norm: source.rmsNorm(`${prefix}.post_attention_layernorm`, hiddenSize, rmsNormEps),
    gate,
    up,
    down: source.linear(`${prefix}.mlp.dense_4h_to_h`, hiddenSize, intermediateSize, mlpBias),
    activation: 'silu',
  });
  return new TransformerBlock(hiddenSize, attention, mlp);
}
