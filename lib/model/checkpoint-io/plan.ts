/** What of a checkpoint goes where in the new one: decided, and refused, before anything is written. */
import { getBackend } from '../../backend';
import { DTYPE_BYTES, type FloatDType } from '../../core/dtype';
import { expectedError } from '../../core/errors';
import { requireInteger } from '../../core/validate';
import type { LoadedTensor } from '../../format/file';
import { unsupported } from '../json-fields';
import { keyValueLayer } from '../repeated-heads';
import type { ModelConfig } from '../types';
import type { CheckpointSource, SinkOptions, SourceTensor } from './types';

export interface PlannedTensor {
  /** Hugging Face's name, and the one in the new file. */
  name: string;
  stored: string;
  /** Of what is given to write: with true numbers of KV heads. */
  shape: readonly number[];
  /** Null: bytes of a type that is copied as it is. */
  dtype: FloatDType | null;
  /** The new file's name of the type. */
  type: string;
  /** In the new file: KV heads repeated, where they are. */
  storedShape: readonly number[];
  bytes: number;
  /** Heads of which each is stored so often; null where nothing is repeated. */
  repeated: { kvHeads: number; repeats: number } | null;
  /** Heads whose rows go into GGUF's order; null where they stay. */
  pairedHeads: number | null;
  /** The bytes are those of the source. */
  raw: boolean;
  changed: boolean;
  /** What is written where it is in no source. */
  values?: Float32Array;
}

/** The model that the new checkpoint is of. @throws GqaError HEADS_NOT_DIVISIBLE, INVALID_ARGUMENT, OUT_OF_RANGE */
export function plannedConfig(source: CheckpointSource, options: SinkOptions): ModelConfig {
  const { config } = source;
  const layerKvHeads = options.layerKvHeads ?? config.layerKvHeads;
  if (layerKvHeads.length !== config.layers) {
    const expected = `a number of KV heads for each of ${config.layers} layers`;
    throw expectedError('INVALID_ARGUMENT', 'layerKvHeads', expected, `${layerKvHeads.length}`);
  }
  layerKvHeads.forEach((kvHeads, layer) => {
    const argument = `layerKvHeads[${layer}]`;
    requireInteger(kvHeads, argument, 1);
    if (config.heads % kvHeads === 0) return;
    const expected = `a divisor of ${config.heads} query heads`;
    throw expectedError('HEADS_NOT_DIVISIBLE', argument, expected, String(kvHeads));
  });
  return { ...config, layerKvHeads, kvHeads: Math.max(...layerKvHeads) };
}

/** @throws GqaError UNSUPPORTED_MODEL, INVALID_ARGUMENT for changes that cannot be */
export function checkChanges(
  source: CheckpointSource,
  target: ModelConfig,
  changed: ReadonlySet<string>,
): void {
  for (const name of changed) {
    const tensor = source.tensors.get(name);
    if (tensor === undefined) {
      throw expectedError('INVALID_ARGUMENT', 'changed', 'names of tensors', name);
    }
    if (tensor.dtype === null) throw unwritable(tensor);
  }
  for (const name of source.tensors.keys()) {
    const layer = keyValueLayer(name);
    if (layer === null || changed.has(name)) continue;
    const [from, to] = [source.config.layerKvHeads[layer], target.layerKvHeads[layer]];
    if (from === to) continue;
    const expected = `${name} among the changed tensors of a layer from ${from} to ${to} KV heads`;
    throw expectedError('INVALID_ARGUMENT', 'changed', expected, 'none');
  }
}

/** A tensor of a type that tools cannot change, or that a folder cannot hold. */
export function unwritable({ name, type }: SourceTensor): Error {
  const remedy = 'F32, F16 or BF16 (take the unquantised checkpoint, or one of these types)';
  return unsupported(`the type of ${name}`, remedy, type);
}

/** Shape in true heads: of a K or V projection, that of the new number. */
export function plannedShape(
  { name, shape }: SourceTensor,
  { layerKvHeads, headDim }: ModelConfig,
): readonly number[] {
  const layer = keyValueLayer(name);
  return layer === null ? shape : [layerKvHeads[layer] * headDim, ...shape.slice(1)];
}

export function floatBytes(shape: readonly number[], dtype: FloatDType): number {
  return shape.reduce((count, size) => count * size, DTYPE_BYTES[dtype]);
}

/** The dtype of most of the weights. */
export function mainDType(source: CheckpointSource): FloatDType {
  const bytes = new Map<FloatDType, number>();
  for (const { dtype, shape } of source.tensors.values()) {
    if (dtype !== null) bytes.set(dtype, (bytes.get(dtype) ?? 0) + floatBytes(shape, dtype));
  }
  const [[dtype]] = [...bytes, ['f32', 0] as const].sort((a, b) => b[1] - a[1]);
  return dtype;
}

/** The tensor in another dtype, rounded to nearest even. */
export function inDType(tensor: LoadedTensor, dtype: FloatDType): LoadedTensor {
  if (tensor.dtype === dtype) return tensor;
  const count = tensor.data.length;
  const data = dtype === 'f32' ? new Float32Array(count) : new Uint16Array(count);
  const { data: from, dtype: fromDtype } = tensor;
  getBackend().convert({ from, fromDtype, to: data, toDtype: dtype, count });
  return { shape: tensor.shape, dtype, data };
}

/** Whether rounding to dtype changes no value. */
export function fitsDType(tensor: LoadedTensor, dtype: FloatDType): boolean {
  const back = inDType(inDType(tensor, dtype), tensor.dtype);
  return back.data.every((x, i) => x === tensor.data[i]);
}
