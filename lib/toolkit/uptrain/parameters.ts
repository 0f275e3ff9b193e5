/** The weights of a model in training, in f32 by their Hugging Face names, with what those that are trained need beside. */
import { getBackend } from '../../backend';
import { expectedError } from '../../core/errors';
import { allocate } from '../../format/file';
import type { ModelConfig, WeightSource } from '../../model/types';

/**
 * What is trained: the projections of keys and values; norms too; queries and outputs of attention too; everything. Each
 * holds the one before.
 */
export const TRAINED_PARTS = ['kv', 'kv+norms', 'attention', 'all'] as const;
export type TrainedPart = (typeof TRAINED_PARTS)[number];

export interface Parameter {
  name: string;
  /** [features, inputs] of a matrix, [features] of a norm or a bias. */
  shape: readonly number[];
  weight: Float32Array;
  /** Null where the parameter stays as it is. */
  training: Training | null;
  /** Whether weight decay pulls it to 0: matrices alone. */
  decays: boolean;
}

/** Of each element: its gradient, and the moments of AdamW. */
export interface Training {
  gradient: Float32Array;
  m: Float32Array;
  v: Float32Array;
}

const PARTS: readonly [RegExp, TrainedPart][] = [
  [/\.self_attn\.[kv]_proj\./, 'kv'],
  [/norm\.weight$/, 'kv+norms'],
  [/\.self_attn\.[qo]_proj\./, 'attention'],
];

function isTrained(name: string, part: TrainedPart): boolean {
  const own = PARTS.find(([pattern]) => pattern.test(name))?.[1] ?? 'all';
  return TRAINED_PARTS.indexOf(own) <= TRAINED_PARTS.indexOf(part);
}

export function kvHeadsOf(config: ModelConfig, layer: number): number {
  return config.layerKvHeads[layer];
}

/** Every parameter of the Llama family and its shape, in the order of the forward pass. */
export function parameterShapes(config: ModelConfig): [name: string, shape: number[]][] {
  const { hiddenSize, intermediateSize, vocabSize, attentionBias, mlpBias } = config;
  const shapes: [string, number[]][] = [['model.embed_tokens.weight', [vocabSize, hiddenSize]]];
  const linear = (name: string, features: number, inputs: number, bias: boolean): void => {
    shapes.push([`${name}.weight`, [features, inputs]]);
    if (bias) shapes.push([`${name}.bias`, [features]]);
  };
  for (let layer = 0; layer < config.layers; layer++) {
    const prefix = `model.layers.${layer}.`;
    const queries = config.heads * config.headDim;
    const keys = kvHeadsOf(config, layer) * config.headDim;
    shapes.push([`${prefix}input_layernorm.weight`, [hiddenSize]]);
    linear(`${prefix}self_attn.q_proj`, queries, hiddenSize, attentionBias);
    linear(`${prefix}self_attn.k_proj`, keys, hiddenSize, attentionBias);
    linear(`${prefix}self_attn.v_proj`, keys, hiddenSize, attentionBias);
    linear(`${prefix}self_attn.o_proj`, hiddenSize, queries, attentionBias);
    shapes.push([`${prefix}post_attention_layernorm.weight`, [hiddenSize]]);
    linear(`${prefix}mlp.gate_proj`, intermediateSize, hiddenSize, mlpBias);
    linear(`${prefix}mlp.up_proj`, intermediateSize, hiddenSize, mlpBias);
    linear(`${prefix}mlp.down_proj`, hiddenSize, intermediateSize, mlpBias);
  }
  shapes.push(['model.norm.weight', [hiddenSize]]);
  if (!config.tiedEmbeddings) shapes.push(['lm_head.weight', [vocabSize, hiddenSize]]);
  return shapes;
}

export type Parameters = ReadonlyMap<string, Parameter>;

/**
 * Reads the weights of a checkpoint, widened to f32.
 * @param part null where nothing is trained: a teacher
 * @throws GqaError INVALID_FILE, NON_FINITE naming the tensor, OUT_OF_MEMORY
 */
export function loadParameters(
  config: ModelConfig,
  source: WeightSource,
  part: TrainedPart | null,
): Parameters {
  const parameters = new Map<string, Parameter>();
  for (const [name, shape] of parameterShapes(config)) {
    const weight = loadFloats(source, name, shape);
    const floats = (): Float32Array =>
      allocate(name, weight.byteLength, () => new Float32Array(weight.length));
    const trained = part !== null && isTrained(name, part);
    const training = trained ? { gradient: floats(), m: floats(), v: floats() } : null;
    parameters.set(name, { name, shape, weight, training, decays: shape.length > 1 });
  }
  return parameters;
}

function loadFloats(source: WeightSource, name: string, shape: readonly number[]): Float32Array {
  const backend = getBackend();
  const { data, dtype } = source.load(name, shape);
  const count = data.length;
  const weight = allocate(name, 4 * count, () => new Float32Array(count));
  backend.convert({ from: data, fromDtype: dtype, to: weight, toDtype: 'f32', count });
  if (!backend.allBelow(weight, 'f32', count, Infinity)) {
    throw expectedError('NON_FINITE', name, 'finite weights', 'NaN or Infinity');
  }
  return weight;
}

/** Those that are trained, in their order. */
export function trainedOf(parameters: Parameters): (Parameter & { training: Training })[] {
  return [...parameters.values()].filter(
    (parameter): parameter is Parameter & { training: Training } => parameter.training !== null,
  );
}
