/**
 * GLM-4: model_type `glm` (GLM-4-9B of 2024) and `glm4` (those of 2025, which norm what attention and MLP give once more
 * before it is added). Few KV heads, biases of queries, keys and values, RoPE of neighbouring pairs on a part of each head,
 * gate and up projection in one matrix.
 */
import type { Precision } from '../../core/precision';
import { AttentionLayer } from '../../nn/attention-layer';
import { GatedMlp } from '../../nn/mlp';
import type { RmsNorm } from '../../nn/rms-norm';
import { Rope } from '../../nn/rope';
import { TransformerBlock } from '../../nn/transformer-block';
import { checkSilu, readCommon, type ConfigSource } from '../config';
import { Decoder } from '../decoder';
import { LayerSource, stackedRows } from '../layer-source';
import type { LanguageModel, ModelConfig, WeightSource } from '../types';
import type { Architecture } from './architecture';

export interface GlmConfig extends ModelConfig {
  /** Whether attention and MLP have a norm behind them too. */
  outputNorms: boolean;
}

export const glm: Architecture<GlmConfig> = {
  name: 'glm',
  modelTypes: ['glm'],
  readConfig: (source) => readConfig(source, 'glm'),
  load,
};

export const glm4: Architecture<GlmConfig> = {
  name: 'glm4',
  modelTypes: ['glm4'],
  readConfig: (source) => readConfig(source, 'glm4'),
  load,
};

function readConfig(source: ConfigSource, name: 'glm' | 'glm4'): GlmConfig {
  checkSilu(source.fields);
  const common = readCommon(name, source, { partialRotary: 0.5 });
  return {
    ...common,
    attentionBias: source.fields.flag('attention_bias', name === 'glm'),
    outputNorms: name === 'glm4',
  };
}

function load(config: GlmConfig, weights: WeightSource, precision: Precision): LanguageModel {
  const { hiddenSize, vocabSize, headDim, rmsNormEps } = config;
  const source = new LayerSource(weights);
  const embedding = source.linear('model.embed_tokens', vocabSize, hiddenSize);
  const rope = new Rope({ headDim, ...config.rope, interleaved: true });
  const blocks = Array.from({ length: config.layers }, (_, layer) =>
    loadBlock(config, source, `model.layers.${layer}`, rope),
  );
  const norm = source.rmsNorm('model.norm', hiddenSize, rmsNormEps);
  const head = config.tiedEmbeddings ? embedding : source.linear('lm_head', vocabSize, hiddenSize);
  return new Decoder(config, { embedding, blocks, norm, head, rope }, precision);
}

function loadBlock(
  config: GlmConfig,
  source: LayerSource,
  prefix: string,
  rope: Rope,
): TransformerBlock {
  const { hiddenSize, intermediateSize, heads, kvHeads, headDim, attentionBias } = config;
  const norm = (name: string): RmsNorm =>
    source.rmsNorm(`${prefix}.${name}`, hiddenSize, config.rmsNormEps);
  const outputNorm = (name: string): RmsNorm | null => (config.outputNorms ? norm(name) : null);
  const projection = (name: string, count: number) =>
    source.linear(`${prefix}.self_attn.${name}`, count * headDim, hiddenSize, attentionBias);
  const attention = new AttentionLayer({
    headDim,
    norm: norm('input_layernorm'),
    query: projection('q_proj', heads),
    key: projection('k_proj', kvHeads),
    value: projection('v_proj', kvHeads),
    output: source.linear(`${prefix}.self_attn.o_proj`, hiddenSize, heads * headDim),
    outputNorm: outputNorm('post_self_attn_layernorm'),
    rope,
  });
  const halves = stackedRows([intermediateSize, intermediateSize]);
  const [gate, up] = source.linears(`${prefix}.mlp.gate_up_proj`, halves, hiddenSize);
  const mlp = new GatedMlp({
    norm: norm('post_attention_layernorm'),
    gate,
    up,
    down: source.linear(`${prefix}.mlp.down_proj`, hiddenSize, intermediateSize),
    outputNorm: outputNorm('post_mlp_layernorm'),
    activation: 'silu',
  });
  return new TransformerBlock(hiddenSize, attention, mlp);
}
