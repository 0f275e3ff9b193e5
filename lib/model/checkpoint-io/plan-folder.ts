/** A folder of safetensors: layers of fewer KV heads than others have each of them repeated (repeated-heads.ts). */
import type { FloatDType } from '../../core/dtype';
import { SAFETENSORS_DTYPES } from '../../format/safetensors-writer';
import { unsupported } from '../json-fields';
import { keyValueLayer } from '../repeated-heads';
import type { ModelConfig } from '../types';
import { ROPE_DIVISORS } from './gguf-metadata';
import { expectedTensors } from './llama-tensors';
import { fitsDType, floatBytes, mainDType, plannedShape, unwritable } from './plan';
import type { PlannedTensor } from './plan';
import type { CheckpointSource, SourceTensor } from './types';

/** Heads that every layer's tensors are given: the largest number, or where others do not divide it, what all divide. */
export function storedHeads(layerKvHeads: readonly number[]): number {
  const gcd = (a: number, b: number): number => (b === 0 ? a : gcd(b, a % b));
  return layerKvHeads.reduce((a, b) => (a / gcd(a, b)) * b);
}

/** @throws GqaError UNSUPPORTED_MODEL for GGUF's blocks, and tensors that folders have no word for */
export function planFolder(
  source: CheckpointSource,
  target: ModelConfig,
  changed: ReadonlySet<string>,
): PlannedTensor[] {
  const heads = storedHeads(target.layerKvHeads);
  const dtype = mainDType(source);
  const known = expectedTensors(target);
  const kept = Array.from(source.tensors.values()).filter(({ name }) => {
    if (source.form === 'folder' || known.has(name)) return true;
    // config.json says it in other words.
    if (name === ROPE_DIVISORS) return false;
    throw unsupported(`${name} in a folder`, 'tensors of the Llama architecture', 'another tensor');
  });
  return kept.map((tensor) =>
    planTensor(source, tensor, target, { heads, dtype, changed: changed.has(tensor.name) }),
  );
}

function planTensor(
  source: CheckpointSource,
  tensor: SourceTensor,
  target: ModelConfig,
  { heads, dtype: main, changed }: { heads: number; dtype: FloatDType; changed: boolean },
): PlannedTensor {
  const { name } = tensor;
  const shape = plannedShape(tensor, target);
  const layer = keyValueLayer(name);
  const kvHeads = layer === null ? heads : target.layerKvHeads[layer];
  const repeats = heads / kvHeads;
  const storedShape = repeats === 1 ? shape : [shape[0] * repeats, ...shape.slice(1)];
  const common = {
    name,
    stored: name,
    shape,
    storedShape,
    repeated: repeats === 1 ? null : { kvHeads, repeats },
    pairedHeads: null,
    changed,
  };
  const { stored } = source;
  if (stored.form === 'folder') {
    const raw = !changed && (layer === null || stored.kvHeads === heads);
    const bytes =
      tensor.dtype === null
        ? stored.files.get(name)!.tensors.get(name)!.bytes
        : floatBytes(storedShape, tensor.dtype);
    return { ...common, dtype: tensor.dtype, type: tensor.type, bytes, raw };
  }
  if (tensor.dtype === null) throw unwritable(tensor);
  const dtype = changed ? tensor.dtype : folderDType(source, tensor, tensor.dtype, main);
  const type = SAFETENSORS_DTYPES[dtype];
  return { ...common, dtype, type, bytes: floatBytes(storedShape, dtype), raw: false };
}

/** GGUF has vectors in F32 whatever the matrices are: they go back to the model's dtype where that loses nothing. */
function folderDType(
  source: CheckpointSource,
  { name, shape }: SourceTensor,
  dtype: FloatDType,
  main: FloatDType,
): FloatDType {
  if (shape.length !== 1 || dtype !== 'f32' || main === 'f32') return dtype;
  return fitsDType(source.read(name), main) ? main : dtype;
}
