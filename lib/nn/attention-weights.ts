/** The parameters of an attention module: their shapes, their first values, and their checks. */
import type { FloatDType } from '../core/dtype';
import { expectedError } from '../core/errors';
import type { SeededRandom } from '../core/random';
import { Tensor } from '../core/tensor';
import { requireFloatTensor, requireOptions } from '../core/validate';
import type { AttentionSizes } from './attention-options';
import { checkWeights } from './inputs';

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
  random: SeededRandom,
): AttentionWeights {
  const weights: Partial<AttentionWeights> = {};
  for (const name of PROJECTIONS) {
    const shape = projectionShape(sizes, name);
    weights[name] = xavierUniform(shape, random);
    if (withBias) weights[`${name}Bias`] = Tensor.zeros([shape[0]]);
  }
  return weights as AttentionWeights;
}

/** Xavier (Glorot) uniform [out, in]: values in ±sqrt(6 / (out + in)). */
function xavierUniform(shape: [number, number], random: SeededRandom): Tensor<'f32'> {
  const weight = Tensor.zeros(shape);
  const bound = Math.sqrt(6 / (shape[0] + shape[1]));
  const { data } = weight;
  for (let i = 0; i < data.length; i++) data[i] = (2 * random.uniform() - 1) * bound;
  return weight;
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
