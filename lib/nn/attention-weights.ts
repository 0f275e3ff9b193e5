/** The parameters of an attention module: their shapes, their first values, and their checks. */
import type { FloatDType } from '../core/dtype';
import { expectedError } from '../core/errors';
import { Tensor } from '../core/tensor';
import { requireFloatTensor, requireOptions } from '../core/validate';
import type { AttentionSizes } from './attention-options';
import { checkWeights } from './inputs';
import { fillXavier, uniformStream } from './random';

export const PROJECTIONS = ['query', 'key', 'value', 'output'] as const;
export type Projection = (typeof PROJECTIONS)[number];
type BiasName = `${Projection}Bias`;

/**
 * Weights [out, in] and biases [out], f32, f16 or bf16: query [heads * headDim, dModel], key and value
 * [kvHeads * headDim, dModel], output [dModel, heads * headDim].
 */
export type AttentionWeights = Record<Projection, Tensor<FloatDType>> &
  Partial<Record<BiasName, Tensor<FloatDType>>>;

export function projectionShape(sizes: AttentionSizes, projection: Projection): [number, number] {
  const { dModel, heads, kvHeads, headDim } = sizes;
  if (projection === 'output') return [dModel, heads * headDim];
  return [(projection === 'query' ? heads : kvHeads) * headDim, dModel];
}

/** Xavier uniform weights and zero biases, as PyTorch's MultiheadAttention begins with. */
export function initialWeights(
  sizes: AttentionSizes,
  withBias: boolean,
  seed: number,
): AttentionWeights {
  const next = uniformStream(seed);
  const weights: Partial<AttentionWeights> = {};
  for (const name of PROJECTIONS) {
    const shape = projectionShape(sizes, name);
    const weight = Tensor.zeros(shape);
    fillXavier(weight.data, shape, next);
    weights[name] = weight;
    if (withBias) weights[`${name}Bias`] = Tensor.zeros([shape[0]]);
  }
  return weights as AttentionWeights;
}

/** @throws GqaError unless every entry is a known parameter of the right shape. */
export function checkAttentionWeights(
  sizes: AttentionSizes,
  withBias: boolean,
  weights: Partial<AttentionWeights>,
): void {
  requireOptions(weights, 'weights');
  const shapes = new Map<string, number[]>();
  for (const name of PROJECTIONS) {
    const shape = projectionShape(sizes, name);
    shapes.set(name, shape);
    if (withBias) shapes.set(`${name}Bias`, [shape[0]]);
  }
  for (const [name, tensor] of Object.entries(weights)) {
    const shape = shapes.get(name);
    if (shape === undefined) {
      const known = [...shapes.keys()].join(', ');
      throw expectedError('INVALID_ARGUMENT', 'weights', `parameters among ${known}`, name);
    }
    checkWeights(`weights.${name}`, requireFloatTensor(tensor, `weights.${name}`), shape);
  }
}

export function copyWeights<W extends Partial<AttentionWeights>>(weights: W): W {
  const copies = Object.entries(weights).map(([name, tensor]) => [name, tensor.to(tensor.dtype)]);
  return Object.fromEntries(copies) as W;
}
