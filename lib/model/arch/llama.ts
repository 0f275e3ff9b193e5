/**
 * The Llama architecture: token embedding, pre-norm blocks of grouped-query attention (RoPE, half-split) and a SwiGLU
 * MLP, a final RMSNorm and an output head, which may be the embedding again. Weights keep their checkpoint's dtype,
 * GGUF's Q8_0, Q4_0 and Q4_1 included; activations are f32, which 'fast' linear layers may round.
 */
import type { Precision } from '../../core/precision';
import { AttentionLayer } from '../../nn/attention-layer';
import { Linear } from '../../nn/linear';
import { GatedMlp } from '../../nn/mlp';
import { RmsNorm } from '../../nn/rms-norm';
import { Rope } from '../../nn/rope';
import { TransformerBlock } from '../../nn/transformer-block';
import { checkSilu, checkUnwindowed, readCommon, type ConfigSource } from '../config';
import { Decoder } from '../decoder';
import type { LanguageModel, ModelConfig, WeightSource } from '../types';
import type { Architecture } from './architecture';

/** Norms and projections of one layer. */
export type BlockLayers = Record<'attentionNorm' | 'mlpNorm', RmsNorm> &
  Record<'query' | 'key' | 'value' | 'output' | 'gate' | 'up' | 'down', Linear>;

export const llama: Architecture = {
  name: 'llama',
  modelTypes: ['llama'],
  readConfig,
  load,
};

function readConfig(source: ConfigSource): ModelConfig {
  checkSilu(source.fields);
  checkUnwindowed(source.fields);
  return readCommon('llama', source);
}

function load(config: ModelConfig, weights: WeightSource, precision: Precision): LanguageModel {
  const { hiddenSize, vocabSize, rmsNormEps } = config;
  const matrix = (name: string): Linear =>
    new Linear(weights.loadMatrix(name, [vocabSize, hiddenSize]));
  const embedding = matrix('model.embed_tokens.weight');
  const rope = new Rope({ headDim: config.headDim, ...config.rope });
  const blocks = Array.from({ length: config.layers }, (_, i) =>
    makeBlock(config, loadBlockLayers(config, weights, i), rope),
  );
  const norm = new RmsNorm(weights.load('model.norm.weight', [hiddenSize]), rmsNormEps);
  const head = config.tiedEmbeddings ? embedding : matrix('lm_head.weight');
  return new Decoder(config, { embedding, blocks, norm, head, rope }, precision);
}

function makeBlock(config: ModelConfig, layers: BlockLayers, rope: Rope): TransformerBlock {
  const { attentionNorm, query, key, value, output, mlpNorm, gate, up, down } = layers;
  const { headDim, hiddenSize } = config;
  return new TransformerBlock(
    hiddenSize,
    new AttentionLayer({ headDim, norm: attentionNorm, query, key, value, output, rope }),
    new GatedMlp({ norm: mlpNorm, gate, up, down, activation: 'silu' }),
  );
}

/** @throws GqaError INVALID_FILE, OUT_OF_MEMORY */
export function loadBlockLayers(
  config: ModelConfig,
  weights: WeightSource,
  layer: number,
): BlockLayers {
  const { hiddenSize, intermediateSize, heads, headDim } = config;
  const kvHeads = config.layerKvHeads[layer];
  const prefix = `model.layers.${layer}.`;
  const norm = (name: string): RmsNorm =>
    new RmsNorm(weights.load(`${prefix}${name}.weight`, [hiddenSize]), config.rmsNormEps);
  const linear = (name: string, out: number, input: number, bias: boolean): Linear =>
    new Linear(
      weights.loadMatrix(`${prefix}${name}.weight`, [out, input]),
      bias ? weights.load(`${prefix}${name}.bias`, [out]) : null,
    );
  const { attentionBias, mlpBias } = config;
  return {
    attentionNorm: norm('input_layernorm'),
    query: linear('self_attn.q_proj', heads * headDim, hiddenSize, attentionBias),
    key: linear('self_attn.k_proj', kvHeads * headDim, hiddenSize, attentionBias),
    value: linear('self_attn.v_proj', kvHeads * headDim, hiddenSize, attentionBias),
    output: linear('self_attn.o_proj', hiddenSize, heads * headDim, attentionBias),
    mlpNorm: norm('post_attention_layernorm'),
    gate: linear('mlp.gate_proj', intermediateSize, hiddenSize, mlpBias),
    up: linear('mlp.up_proj', intermediateSize, hiddenSize, mlpBias),
    down: linear('mlp.down_proj', hiddenSize, intermediateSize, mlpBias),
  };
}
