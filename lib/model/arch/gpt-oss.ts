/**
 * gpt-oss: a mixture of experts with biases and a gate of its own, sink logits (what a head may give its attention to in
 * place of a key), windows in every other layer, YaRN. Experts are stored as [experts, input, output], or in MXFP4 as
 * [experts, output, input], the outputs of gate and up in turn.
 */
import type { Precision } from '../../core/precision';
import { Tensor } from '../../core/tensor';
import { AttentionLayer } from '../../nn/attention-layer';
import { widen } from '../../nn/inputs';
import { Linear } from '../../nn/linear';
import { MoE, type Expert } from '../../nn/moe';
import { Rope } from '../../nn/rope';
import { TransformerBlock } from '../../nn/transformer-block';
import { checkSilu, readCommon, type ConfigSource } from '../config';
import { readLayerWindows, type WindowedConfig } from '../config-windows';
import { unsupported, type JsonFields } from '../json-fields';
import type { LanguageModel, MatrixTensor, WeightSource, WeightTensor } from '../types';
import type { Architecture } from './architecture';
import { loadDecoder } from './llama-parts';

export interface GptOssConfig extends WindowedConfig {
  experts: number;
  expertsPerToken: number;
}

const DEFAULTS = {
  head_dim: 64,
  num_key_value_heads: 8,
  attention_bias: true,
  max_position_embeddings: 131_072,
  rms_norm_eps: 1e-5,
};
/** Of the gate; see nn's activation 'swiglu_oai', which knows no others. */
const GATE = { swiglu_limit: 7, swiglu_alpha: 1.702 };
/** Inputs that are transposed together: as many elements as a cache line has room for, and some. */
const TILE = 32;

export const gptOss: Architecture<GptOssConfig> = {
  name: 'gpt_oss',
  modelTypes: ['gpt_oss'],
  readConfig,
  load,
};

function readConfig(source: ConfigSource): GptOssConfig {
  const fields = source.fields.withDefaults(DEFAULTS);
  checkSilu(fields);
  checkGate(fields);
  const mxfp4 = fields.object('quantization_config').text('quant_method') === 'mxfp4';
  const read = mxfp4 ? fields.with({ quantization_config: undefined }) : fields;
  const config = readCommon('gpt_oss', { ...source, fields: read }, { theta: 150_000 });
  const experts = fields.integer('num_local_experts', 128);
  const expertsPerToken = fields.integer('num_experts_per_tok', 4);
  if (expertsPerToken > experts) {
    throw fields.wrong('num_experts_per_tok', `at most ${experts}`, expertsPerToken);
  }
  const layerWindows = readLayerWindows(fields, config.layers, (layer) => layer % 2 === 0);
  return { ...config, layerWindows, experts, expertsPerToken };
}

function checkGate(fields: JsonFields): void {
  for (const [name, value] of Object.entries(GATE)) {
    const found = fields.positive(name, value);
    if (found !== value) throw unsupported(name, String(value), String(found));
  }
}

function load(config: GptOssConfig, weights: WeightSource, precision: Precision): LanguageModel {
  const { hiddenSize, heads, headDim, layerWindows, experts, expertsPerToken } = config;
  const rope = new Rope({ headDim, ...config.rope });
  return loadDecoder(
    config,
    weights,
    precision,
    (layer) => {
      const prefix = `model.layers.${layer.index}`;
      const sinks = widen(weights.load(`${prefix}.self_attn.sinks`, [heads]));
      return new TransformerBlock(
        hiddenSize,
        new AttentionLayer({
          headDim,
          norm: layer.norm('input_layernorm'),
          ...layer.projections(),
          rope,
          window: layerWindows[layer.index],
          features: { sinkLogits: Tensor.view(sinks.slice(), [heads]) },
        }),
        new MoE({
          norm: layer.norm('post_attention_layernorm'),
          router: layer.linear('mlp.router', experts, hiddenSize, true),
          experts: loadExperts(config, weights, `${prefix}.mlp.experts`),
          expertsPerToken,
          activation: 'swiglu_oai',
        }),
      );
    },
    // Windows in some layers and sink logits leave no meaning to positions counted within the cache.
    { rope: null },
  );
}

function loadExperts(
  { hiddenSize, intermediateSize, experts }: GptOssConfig,
  weights: WeightSource,
  name: string,
): Expert[] {
  const gateUp = new ExpertMatrices(weights, `${name}.gate_up_proj`, [
    experts,
    hiddenSize,
    2 * intermediateSize,
  ]);
  const down = new ExpertMatrices(weights, `${name}.down_proj`, [
    experts,
    intermediateSize,
    hiddenSize,
  ]);
  return Array.from({ length: experts }, (_, expert) => ({
    gate: gateUp.linear(expert, 0, 2),
    up: gateUp.linear(expert, 1, 2),
    down: down.linear(expert, 0, 1),
  }));
}

/** The matrices of all experts as one tensor, read when the first of them is asked for. */
class ExpertMatrices {
  private readonly bias: WeightTensor;
  private stored: WeightTensor | null = null;
  private blocks: MatrixTensor | null = null;

  constructor(
    private readonly weights: WeightSource,
    private readonly name: string,
    private readonly shape: readonly [experts: number, input: number, output: number],
  ) {
    this.bias = weights.load(`${name}_bias`, [shape[0], shape[2]]);
  }

  /** Outputs first, first + every, ... of an expert, with their bias. */
  linear(expert: number, first: number, every: number): Linear {
    const [, inputs, stored] = this.shape;
    const shape = [stored / every, inputs];
    const inBlocks = this.weights.has(`${this.name}_blocks`);
    const make = (): MatrixTensor =>
      inBlocks ? this.picked(expert, first, every) : this.transposed(expert, first, every);
    const name = `${this.name} ${expert} ${first}`;
    const weight = this.weights.derive?.(name, shape, make) ?? make();
    const data = this.bias.data
      .slice(expert * stored, (expert + 1) * stored)
      .filter((_, i) => i % every === first);
    return new Linear(weight, { shape: [shape[0]], dtype: this.bias.dtype, data });
  }

  /** From [experts, output, input]. */
  private picked(expert: number, first: number, every: number): MatrixTensor {
    const [experts, inputs, stored] = this.shape;
    this.blocks ??= this.weights.loadMatrix(this.name, [experts, stored, inputs]);
    const { data } = this.blocks;
    const outputs = stored / every;
    const width = data.length / (experts * stored);
    const out = data.slice(0, outputs * width);
    for (let output = 0; output < outputs; output++) {
      const from = (expert * stored + first + output * every) * width;
      out.set(data.subarray(from, from + width), output * width);
    }
    return { ...this.blocks, shape: [outputs, inputs], data: out } as MatrixTensor;
  }

  /** From [experts, input, output]. */
  private transposed(expert: number, first: number, every: number): WeightTensor {
    this.stored ??= this.weights.load(this.name, this.shape);
    const { data, dtype } = this.stored;
    const [, inputs, stored] = this.shape;
    const outputs = stored / every;
    const start = expert * inputs * stored + first;
    const out = data.slice(0, outputs * inputs);
    for (let tile = 0; tile < inputs; tile += TILE) {
      const end = Math.min(inputs, tile + TILE);
      for (let output = 0; output < outputs; output++) {
        for (let input = tile; input < end; input++) {
          out[output * inputs + input] = data[start + input * stored + output * every];
        }
      }
    }
    return { shape: [outputs, inputs], dtype, data: out };
  }
}
