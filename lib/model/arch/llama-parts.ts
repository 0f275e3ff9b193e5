/** What the descendants of Llama load alike: parts made of tensors by the names that they share. */
import type { Precision } from '../../core/precision';
import type { Linear } from '../../nn/linear';
import type { RmsNorm } from '../../nn/rms-norm';
import type { Block } from '../../nn/transformer-block';
import { Decoder, type DecoderParts } from '../decoder';
import { LayerSource, stackedRows } from '../layer-source';
import type { ModelConfig, WeightSource } from '../types';

export interface LlamaNames {
  /** What all names but the output head's begin with; default 'model'. */
  root?: string;
  /** What norms multiply by beside the stored weight: 1 where they are x * (1 + w); default 0. */
  normOffset?: number;
}

/** Which projections of attention have a bias; default: as the config says, all or none. */
export interface ProjectionBiases {
  queryKeyValue?: boolean;
  output?: boolean;
}

/** The tensors of one layer, asked for by their names in it. */
export class LlamaLayer {
  private readonly prefix: string;
  private readonly normOffset: number;

  constructor(
    private readonly config: ModelConfig,
    private readonly source: LayerSource,
    readonly index: number,
    { root = 'model', normOffset = 0 }: LlamaNames,
  ) {
    this.prefix = `${root}.layers.${index}.`;
    this.normOffset = normOffset;
  }

  /** @throws GqaError INVALID_FILE, as all that follow; OUT_OF_MEMORY */
  norm(name: string, dim = this.config.hiddenSize): RmsNorm {
    const { source, prefix, normOffset } = this;
    return source.rmsNorm(`${prefix}${name}`, dim, this.config.rmsNormEps, normOffset);
  }

  linear(name: string, out: number, input: number, bias = false): Linear {
    return this.source.linear(`${this.prefix}${name}`, out, input, bias);
  }

  /** Layers whose rows are stored as one matrix, one layer's after the other's. */
  stacked(name: string, outs: readonly number[], input: number): Linear[] {
    return this.source.linears(`${this.prefix}${name}`, stackedRows(outs), input);
  }

  projections(biases: ProjectionBiases = {}): Record<'query' | 'key' | 'value' | 'output', Linear> {
    const { hiddenSize, heads, headDim, layerKvHeads, attentionBias } = this.config;
    const { queryKeyValue = attentionBias, output = attentionBias } = biases;
    const queries = heads * headDim;
    const keys = layerKvHeads[this.index] * headDim;
    return {
      query: this.linear('self_attn.q_proj', queries, hiddenSize, queryKeyValue),
      key: this.linear('self_attn.k_proj', keys, hiddenSize, queryKeyValue),
      value: this.linear('self_attn.v_proj', keys, hiddenSize, queryKeyValue),
      output: this.linear('self_attn.o_proj', hiddenSize, queries, output),
    };
  }

  gatedMlp(): Record<'gate' | 'up' | 'down', Linear> {
    const { hiddenSize, intermediateSize, mlpBias } = this.config;
    return {
      gate: this.linear('mlp.gate_proj', intermediateSize, hiddenSize, mlpBias),
      up: this.linear('mlp.up_proj', intermediateSize, hiddenSize, mlpBias),
      down: this.linear('mlp.down_proj', hiddenSize, intermediateSize, mlpBias),
    };
  }
}

/**
 * Embedding, a block for every layer, final norm and output head.
 * @throws GqaError INVALID_FILE, OUT_OF_MEMORY
 */
export function loadDecoder(
  config: ModelConfig,
  weights: WeightSource,
  precision: Precision,
  makeBlock: (layer: LlamaLayer) => Block,
  own: Pick<DecoderParts, 'rope' | 'embeddingScale' | 'logitSoftcap'>,
  names: LlamaNames = {},
): Decoder {
  const { vocabSize, hiddenSize, rmsNormEps, tiedEmbeddings } = config;
  const { root = 'model', normOffset } = names;
  const source = new LayerSource(weights);
  const embedding = source.linear(`${root}.embed_tokens`, vocabSize, hiddenSize);
  const blocks = Array.from({ length: config.layers }, (_, index) =>
    makeBlock(new LlamaLayer(config, source, index, names)),
  );
  const norm = source.rmsNorm(`${root}.norm`, hiddenSize, rmsNormEps, normOffset);
  const head = tiedEmbeddings ? embedding : source.linear('lm_head', vocabSize, hiddenSize);
  return new Decoder(config, { ...own, embedding, blocks, norm, head }, precision);
}
