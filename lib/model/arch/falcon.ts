/**
 * Falcon. 7B: one KV head, attention and an MLP without a gate beside each other over one layer norm. 40B and 180B
 * (new_decoder_architecture): several KV heads, and a norm each. RW: biases, ALiBi in place of RoPE, as many KV heads as
 * heads, attention before the MLP. The projection of a layer holds each KV head's queries before its key and its value.
 */
import type { Precision } from '../../core/precision';
import { Tensor } from '../../core/tensor';
import { alibiSlopes } from '../../nn/alibi';
import type { Activation } from '../../nn/activation';
import { AttentionLayer } from '../../nn/attention-layer';
import type { LayerNorm } from '../../nn/layer-norm';
import { Mlp } from '../../nn/mlp';
import { Rope } from '../../nn/rope';
import { ParallelBlock, TransformerBlock, type Block } from '../../nn/transformer-block';
import { readActivation, readCommon, type ConfigSource } from '../config';
import { Decoder } from '../decoder';
import type { JsonFields } from '../json-fields';
import { groupedRows, LayerSource } from '../layer-source';
import type { LanguageModel, ModelConfig, WeightSource } from '../types';
import type { Architecture } from './architecture';

export interface FalconConfig extends ModelConfig {
  activation: Activation;
  layerNormEps: number;
  alibi: boolean;
  parallel: boolean;
  /** Whether attention and MLP, beside each other, have a norm each. */
  twoNorms: boolean;
}

export const falcon: Architecture<FalconConfig> = {
  name: 'falcon',
  modelTypes: ['falcon'],
  readConfig,
  load,
};

function readConfig(source: ConfigSource): FalconConfig {
  const { fields } = source;
  const grouped = fields.flag('new_decoder_architecture', false);
  const parallel = fields.flag('parallel_attn', true);
  const common = readCommon('falcon', {
    ...source,
    fields: fields.renamed({ intermediate_size: 'ffn_hidden_size' }).with({
      num_key_value_heads: kvHeads(fields, grouped),
      ...(fields.has('ffn_hidden_size')
        ? {}
        : { intermediate_size: 4 * fields.integer('hidden_size', 4544) }),
    }),
  });
  const bias = fields.flag('bias', false);
  const norms = fields.integer('num_ln_in_parallel_attn', grouped ? 2 : 1);
  return {
    ...common,
    attentionBias: bias,
    mlpBias: bias,
    tiedEmbeddings: fields.flag('tie_word_embeddings', true),
    activation: readActivation(fields, 'activation', 'gelu'),
    layerNormEps: fields.positive('layer_norm_epsilon', 1e-5),
    alibi: fields.flag('alibi', false),
    parallel: grouped || parallel,
    twoNorms: grouped && norms === 2,
  };
}

function kvHeads(fields: JsonFields, grouped: boolean): number {
  const heads = fields.integer('num_attention_heads', 71);
  if (grouped) return fields.integer('num_kv_heads', heads);
  return fields.flag('multi_query', true) ? 1 : heads;
}

function load(config: FalconConfig, weights: WeightSource, precision: Precision): LanguageModel {
  const { hiddenSize, vocabSize, headDim } = config;
  const source = new LayerSource(weights);
  const embedding = source.linear('transformer.word_embeddings', vocabSize, hiddenSize);
  const rope = config.alibi ? null : new Rope({ headDim, ...config.rope });
  const blocks = Array.from({ length: config.layers }, (_, layer) =>
    loadBlock(config, source, `transformer.h.${layer}`, rope),
  );
  const norm = source.layerNorm('transformer.ln_f', hiddenSize, config.layerNormEps);
  const head = config.tiedEmbeddings ? embedding : source.linear('lm_head', vocabSize, hiddenSize);
  return new Decoder(config, { embedding, blocks, norm, head, rope }, precision);
}

function loadBlock(
  config: FalconConfig,
  source: LayerSource,
  prefix: string,
  rope: Rope | null,
): Block {
  const { hiddenSize, intermediateSize, mlpBias, parallel } = config;
  const norms = loadNorms(config, source, prefix);
  const attention = loadAttention(config, source, `${prefix}.self_attention`, norms[0], rope);
  const mlp = new Mlp({
    norm: norms[1],
    up: source.linear(`${prefix}.mlp.dense_h_to_4h`, intermediateSize, hiddenSize, mlpBias),
    down: source.linear(`${prefix}.mlp.dense_4h_to_h`, hiddenSize, intermediateSize, mlpBias),
    activation: config.activation,
  });
  return parallel
    ? new ParallelBlock(hiddenSize, attention, mlp)
    : new TransformerBlock(hiddenSize, attention, mlp);
}

/** Of attention and of the MLP; one and the same where they share it. */
function loadNorms(
  { hiddenSize, layerNormEps, parallel, twoNorms }: FalconConfig,
  source: LayerSource,
  prefix: string,
): [LayerNorm, LayerNorm] {
  const load = (name: string) => source.layerNorm(`${prefix}.${name}`, hiddenSize, layerNormEps);
  if (twoNorms) return [load('ln_attn'), load('ln_mlp')];
  const first = load('input_layernorm');
  return [first, parallel ? first : load('post_attention_layernorm')];
}

function loadAttention(
  config: FalconConfig,
  source: LayerSource,
  prefix: string,
  norm: LayerNorm,
  rope: Rope | null,
): AttentionLayer {
  const { hiddenSize, heads, kvHeads, headDim, attentionBias, alibi } = config;
  const rows = groupedRows(heads, kvHeads, headDim);
  const [query, key, value] = source.linears(
    `${prefix}.query_key_value`,
    rows,
    hiddenSize,
    attentionBias,
  );
  const output = source.linear(`${prefix}.dense`, hiddenSize, heads * headDim, attentionBias);
  // Falcon scales scores and their ALiBi alike, attention scores alone.
  const slopes = alibiSlopes(heads).map((slope) => slope / Math.sqrt(headDim));
  const features = alibi ? { alibiSlopes: Tensor.view(slopes, [heads]) } : {};
  return new AttentionLayer({ headDim, norm, query, key, value, output, rope, features });
}
