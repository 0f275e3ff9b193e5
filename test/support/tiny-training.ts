/** A tiny random Llama as training takes it: its config, a source of its weights, and the same for the reference model. */
import type { ModelConfig, WeightSource } from '../../lib/model/types';
import { huggingFaceName } from './reference-checkpoint';
import type { ReferenceConfig } from './reference-llama';
import { Random } from './random';
import { parameterShapes } from '../../lib/toolkit/uptrain/parameters';
import { normals } from './tensors';

export const TINY: ModelConfig = {
  architecture: 'llama',
  vocabSize: 13,
  hiddenSize: 8,
  intermediateSize: 12,
  layers: 2,
  heads: 4,
  kvHeads: 2,
  layerKvHeads: [2, 2],
  headDim: 4,
  rmsNormEps: 1e-5,
  rope: { theta: 100, scaling: null },
  contextLength: 32,
  tiedEmbeddings: true,
  attentionBias: false,
  mlpBias: false,
  bosTokenId: 1,
  eosTokenIds: [2],
};

/** The same with other KV heads, layer by layer. */
export function withKvHeads(config: ModelConfig, ...layerKvHeads: number[]): ModelConfig {
  return { ...config, layerKvHeads, kvHeads: Math.max(...layerKvHeads) };
}

const BIASED = ['attn_q', 'attn_k', 'attn_v', 'attn_output'];

export function referenceConfig(c: ModelConfig): ReferenceConfig {
  return {
    vocab: c.vocabSize,
    hidden: c.hiddenSize,
    intermediate: c.intermediateSize,
    layers: c.layers,
    heads: c.heads,
    kvHeads: c.kvHeads,
    layerKvHeads: c.layerKvHeads,
    headDim: c.headDim,
    eps: c.rmsNormEps,
    theta: c.rope.theta,
    ropePairs: 'halves',
    biased: c.attentionBias ? BIASED : [],
  };
}

export type TinyWeights = Map<string, { shape: number[]; data: number[] }>;

/** Embeddings of unit size, matrices that keep it, norms about 1; each number an f32's. */
export function tinyWeights(config: ModelConfig, seed: number): TinyWeights {
  const random = new Random(seed);
  return new Map(
    parameterShapes(config).map(([name, shape]) => {
      const size = name.includes('embed') ? 1 : 1 / Math.sqrt(shape.at(-1)!);
      const count = shape.reduce((a, b) => a * b);
      const draw = normals(random, count, 'f32');
      const data = draw.map((x) => Math.fround(/norm/.test(name) ? 1 + x / 4 : x * size));
      return [name, { shape, data }];
    }),
  );
}

export function sourceOf(weights: TinyWeights): WeightSource {
  const load = (name: string) => {
    const { shape, data } = weights.get(name)!;
    return { shape, dtype: 'f32' as const, data: Float32Array.from(data) };
  };
  return { has: (name) => weights.has(name), load, loadMatrix: load, close: () => undefined };
}

/** By the names that the reference model asks for. */
export function referenceWeights(weights: TinyWeights): (name: string) => number[] {
  return (name) =>
    (weights.get(huggingFaceName(name)) ?? weights.get('model.embed_tokens.weight'))!.data;
}
