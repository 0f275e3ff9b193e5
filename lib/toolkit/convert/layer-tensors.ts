/** The attention projections of a layer, from the tensors of a checkpoint and back to them. */
import { getBackend } from '../../backend';
import { expectedError } from '../../core/errors';
import type { LoadedTensor } from '../../format/file';
import type { CheckpointSource } from '../../model/checkpoint-io/types';
import { inDType } from '../../model/checkpoint-io/plan';
import { widen } from '../../nn/inputs';
import { emptyRows, type Rows } from './matrices';
import type { Projections } from './projections';

const PARTS = [
  ['query', 'q_proj'],
  ['key', 'k_proj'],
  ['value', 'v_proj'],
  ['output', 'o_proj'],
] as const;

const nameOf = (layer: number, part: string, kind: 'weight' | 'bias'): string =>
  `model.layers.${layer}.self_attn.${part}.${kind}`;

/** The tensors that a conversion of the layer may change: all weights, and the biases of queries, keys and values. */
export function layerTensorNames(attentionBias: boolean, layer: number): string[] {
  return PARTS.flatMap(([part, name]) =>
    attentionBias && part !== 'output'
      ? [nameOf(layer, name, 'weight'), nameOf(layer, name, 'bias')]
      : [nameOf(layer, name, 'weight')],
  );
}

/** @throws GqaError NON_FINITE with the tensor's name, INVALID_FILE, UNSUPPORTED_MODEL, OUT_OF_MEMORY */
export function readProjections(source: CheckpointSource, layer: number): Projections {
  const { heads, layerKvHeads, headDim, attentionBias } = source.config;
  const rows = Object.fromEntries(
    PARTS.map(([part, name]) => {
      const weight = readRows(source, nameOf(layer, name, 'weight'));
      if (!attentionBias || part === 'output') return [part, weight];
      return [part, withColumn(weight, readRows(source, nameOf(layer, name, 'bias')))];
    }),
  ) as Record<(typeof PARTS)[number][0], Rows>;
  return { heads, kvHeads: layerKvHeads[layer], headDim, ...rows };
}

/** Bias [hiddenSize] of the output projection; null where it has none. */
export function readOutputBias(source: CheckpointSource, layer: number): Float32Array | null {
  const name = nameOf(layer, 'o_proj', 'bias');
  return source.config.attentionBias ? readRows(source, name).data : null;
}

/** By name, in the dtypes that they have in the source: what is written, and what the converted layer computes with. */
export function projectionTensors(
  source: CheckpointSource,
  layer: number,
  projections: Projections,
): Map<string, LoadedTensor> {
  const tensors = new Map<string, LoadedTensor>();
  const put = (name: string, shape: number[], data: Float32Array): void => {
    const dtype = source.tensors.get(name)?.dtype ?? 'f32';
    tensors.set(name, inDType({ shape, dtype: 'f32', data }, dtype));
  };
  for (const [part, name] of PARTS) {
    const rows = projections[part];
    const biased = source.config.attentionBias && part !== 'output';
    const { weight, bias } = biased ? splitColumn(rows) : { weight: rows, bias: null };
    put(nameOf(layer, name, 'weight'), [weight.rows, weight.columns], weight.data);
    if (bias !== null) put(nameOf(layer, name, 'bias'), [bias.length], bias);
  }
  return tensors;
}

/** The part's weight and bias among them. */
export function tensorsOf(
  tensors: ReadonlyMap<string, LoadedTensor>,
  layer: number,
  part: (typeof PARTS)[number][1],
): { weight: LoadedTensor; bias: LoadedTensor | null } {
  const bias = tensors.get(nameOf(layer, part, 'bias')) ?? null;
  return { weight: tensors.get(nameOf(layer, part, 'weight'))!, bias };
}

function readRows(source: CheckpointSource, name: string): Rows {
  const tensor = source.read(name);
  const data = widen(tensor);
  if (!getBackend().allBelow(data, 'f32', data.length, Infinity)) {
    throw expectedError('NON_FINITE', name, 'finite weights', 'NaN or Infinity');
  }
  const [rows, columns = 1] = tensor.shape;
  return { data, rows, columns };
}

function withColumn({ data, rows, columns }: Rows, last: Rows): Rows {
  const out = emptyRows(rows, columns + 1);
  for (let row = 0; row < rows; row++) {
    out.data.set(data.subarray(row * columns, (row + 1) * columns), row * (columns + 1));
    out.data[row * (columns + 1) + columns] = last.data[row];
  }
  return out;
}

function splitColumn({ data, rows, columns }: Rows): { weight: Rows; bias: Float32Array } {
  const weight = emptyRows(rows, columns - 1);
  const bias = new Float32Array(rows);
  for (let row = 0; row < rows; row++) {
    const first = row * columns;
    weight.data.set(data.subarray(first, first + columns - 1), row * (columns - 1));
    bias[row] = data[first + columns - 1];
  }
  return { weight, bias };
}
