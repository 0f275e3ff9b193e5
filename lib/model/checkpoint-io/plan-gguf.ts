/** A GGUF file: rows of Q and K in the order of interleaved RoPE, vectors in F32, which is all that ggml's norms take. */
import type { FloatDType } from '../../core/dtype';
import { ggmlTypeName } from '../../format/ggml-types';
import { unsupported } from '../json-fields';
import type { ModelConfig } from '../types';
import { ggufName, huggingFaceName } from '../gguf/names';
import { ROPE_DIVISORS, ropeDivisors } from './gguf-metadata';
import { expectedTensors, rotatedHeads } from './llama-tensors';
import { floatBytes, plannedShape, unwritable } from './plan';
import type { PlannedTensor } from './plan';
import type { CheckpointSource, SourceTensor } from './types';

/** Buffers of old folders: what they hold follows from the config. */
const DERIVED = /\.rotary_emb\.inv_freq$/;

/** @throws GqaError UNSUPPORTED_MODEL for tensors that GGUF has no word for */
export function planGguf(
  source: CheckpointSource,
  target: ModelConfig,
  changed: ReadonlySet<string>,
): PlannedTensor[] {
  const { stored } = source;
  if (stored.form === 'gguf') {
    return Array.from(stored.file.tensors, ([name, { bytes }]) => {
      const tensor = source.tensors.get(huggingFaceName(name))!;
      return planned(tensor, target, {
        dtype: tensor.dtype,
        type: tensor.type,
        bytes,
        changed: changed.has(tensor.name),
        raw: !changed.has(tensor.name),
      });
    });
  }
  const plan = fromFolder(source, target, changed);
  const divisors = ropeDivisors(target);
  return divisors === null ? plan : [...plan, divisorsTensor(divisors)];
}

function fromFolder(
  source: CheckpointSource,
  target: ModelConfig,
  changed: ReadonlySet<string>,
): PlannedTensor[] {
  const known = expectedTensors(target);
  const plan: PlannedTensor[] = [];
  for (const tensor of source.tensors.values()) {
    const { name, dtype, shape } = tensor;
    // Beside a tied embedding, an output head is a copy that nobody reads.
    const unread = name === 'lm_head.weight' && target.tiedEmbeddings;
    if (unread || DERIVED.test(name)) continue;
    if (!known.has(name)) {
      throw unsupported(`${name} in GGUF`, 'tensors of the Llama architecture', 'another tensor');
    }
    if (dtype === null) throw unwritable(tensor);
    const kept: FloatDType = shape.length === 1 ? 'f32' : dtype;
    const isChanged = changed.has(name);
    const inOrder = rotatedHeads(name, target) === null && kept === dtype;
    plan.push(
      planned(tensor, target, {
        dtype: kept,
        type: ggmlTypeName(kept),
        bytes: 0,
        changed: isChanged,
        raw: !isChanged && inOrder && isStoredOnce(source, tensor),
      }),
    );
  }
  return plan;
}

function planned(
  tensor: SourceTensor,
  target: ModelConfig,
  {
    dtype,
    type,
    bytes,
    changed,
    raw,
  }: Pick<PlannedTensor, 'dtype' | 'type' | 'bytes' | 'changed' | 'raw'>,
): PlannedTensor {
  const shape = plannedShape(tensor, target);
  return {
    name: tensor.name,
    stored: ggufName(tensor.name),
    shape,
    storedShape: shape,
    dtype,
    type,
    bytes: dtype === null ? bytes : floatBytes(shape, dtype),
    repeated: null,
    pairedHeads: rotatedHeads(tensor.name, target),
    changed,
    raw,
  };
}

/** Whether a folder has the tensor as it is, no head repeated. */
function isStoredOnce({ stored }: CheckpointSource, { name, shape }: SourceTensor): boolean {
  if (stored.form === 'gguf') return true;
  return stored.files.get(name)!.tensors.get(name)!.shape.join() === shape.join();
}

function divisorsTensor(values: Float32Array): PlannedTensor {
  const shape = [values.length];
  return {
    name: ROPE_DIVISORS,
    stored: ROPE_DIVISORS,
    shape,
    storedShape: shape,
    dtype: 'f32',
    type: 'F32',
    bytes: values.byteLength,
    repeated: null,
    pairedHeads: null,
    changed: false,
    raw: false,
    values,
  };
}
