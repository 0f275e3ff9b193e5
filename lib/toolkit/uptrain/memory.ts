/** What training needs of memory, and how many tokens go through the network together, so that it stays bounded. */
import type { ModelConfig } from '../../model/types';
import { parameterShapes, trainedOf, type Parameters } from './parameters';

/** Of what is kept for the backward pass. */
const ACTIVATION_BYTES = 2 ** 29;
/** More make products no faster, and leave the caches. */
const MAX_TOKENS = 2048;

/** Floats that a token's forward pass keeps; see BlockActivations. */
function keptPerToken({
  layers,
  hiddenSize,
  intermediateSize,
  heads,
  kvHeads,
  headDim,
}: ModelConfig): number {
  return layers * (2 * hiddenSize + 2 * (heads + kvHeads) * headDim + 2 * intermediateSize);
}

/** Tokens of a micro-batch. A choice by the model alone: another would change the last bits. */
export function microTokens(config: ModelConfig): number {
  return Math.min(MAX_TOKENS, Math.floor(ACTIVATION_BYTES / 4 / keptPerToken(config)));
}

/** Bytes held while training: weights, both packed forms, gradients and moments; what is kept of a micro-batch. */
export function trainingBytes(config: ModelConfig, parameters: Parameters, tokens: number): number {
  const count = (shape: readonly number[]): number => shape.reduce((a, b) => a * b);
  const matrices = parameterShapes(config).filter(([, shape]) => shape.length > 1);
  const weights = [...parameters.values()].reduce((sum, { weight }) => sum + weight.length, 0);
  const packed = 2 * matrices.reduce((sum, [, shape]) => sum + count(shape), 0);
  const trained = 3 * trainedOf(parameters).reduce((sum, { weight }) => sum + weight.length, 0);
  return 4 * (weights + packed + trained + tokens * keptPerToken(config));
}
