/** A checkpoint opened for the toolkit: every tensor by name, checked against what the config promises. */
import { invalidFile } from '../../format/file';
import { FLOAT_DTYPES } from '../../format/safetensors';
import { openCheckpoint } from '../checkpoint';
import { unsupported } from '../json-fields';
import type { Checkpoint } from '../checkpoint';
import type { JsonObject } from '../json-fields';
import { keyValueLayer } from '../repeated-heads';
import type { ModelConfig } from '../types';
import { huggingFaceName } from '../gguf/names';
import { configJsonOfGguf } from './config-json';
import { expectedTensors } from './llama-tensors';
import type { CheckpointSource, SourceTensor } from './types';

/**
 * Opens a Hugging Face folder or a GGUF file; the caller closes it.
 * @throws GqaError INVALID_ARGUMENT where path is nothing, INVALID_FILE (also where a tensor of the model is missing or has
 *   another shape), UNSUPPORTED_MODEL
 */
export function openSource(path: string): CheckpointSource {
  const checkpoint = openCheckpoint(path);
  try {
    const { stored, config, weights } = checkpoint;
    if (config.architecture !== 'llama') {
      throw unsupported('the architecture', 'llama', config.architecture);
    }
    const tensors = inModelOrder(config, listTensors(checkpoint));
    checkTensors(path, config, tensors);
    const read = (name: string): ReturnType<CheckpointSource['read']> => {
      const tensor = tensors.get(name);
      if (tensor === undefined) throw invalidFile(path, `a tensor ${name}`, 'none');
      return weights.load(name, tensor.shape);
    };
    return {
      path,
      stored,
      form: stored.form,
      config,
      tensors,
      // Not every GGUF can be told in config.json: asked for only where it is needed.
      get configJson() {
        return configJsonOf(checkpoint);
      },
      weights,
      tokenizer: () => checkpoint.tokenizer(),
      read,
      close: () => weights.close(),
    };
  } catch (error) {
    checkpoint.weights.close();
    throw error;
  }
}

function configJsonOf({ stored, config }: Checkpoint): JsonObject {
  return stored.form === 'folder' ? stored.json : configJsonOfGguf(stored.file, config);
}

function listTensors({ stored, config }: Checkpoint): SourceTensor[] {
  if (stored.form === 'gguf') {
    return Array.from(stored.file.tensors, ([name, { shape, type }]) => ({
      name: huggingFaceName(name),
      shape,
      dtype: type.dtype ?? null,
      type: type.name,
    }));
  }
  return Array.from(stored.files, ([name, file]) => {
    const { shape, dtype } = file.tensors.get(name)!;
    const layer = keyValueLayer(name);
    const repeats = layer === null ? 1 : stored.kvHeads / (config.layerKvHeads[layer] ?? 1);
    return {
      name,
      shape: repeats === 1 ? shape : [shape[0] / repeats, ...shape.slice(1)],
      dtype: FLOAT_DTYPES.get(dtype) ?? null,
      type: dtype,
    };
  });
}

/** What the architecture knows in its order, then the others as they come. */
function inModelOrder(
  config: ModelConfig,
  list: readonly SourceTensor[],
): Map<string, SourceTensor> {
  const byName = new Map(list.map((tensor) => [tensor.name, tensor]));
  const ordered = new Map<string, SourceTensor>();
  for (const name of [...expectedTensors(config).keys(), ...byName.keys()]) {
    const tensor = byName.get(name);
    if (tensor !== undefined) ordered.set(name, tensor);
  }
  return ordered;
}

function checkTensors(
  path: string,
  config: ModelConfig,
  tensors: ReadonlyMap<string, SourceTensor>,
): void {
  for (const [name, shape] of expectedTensors(config)) {
    const stored = tensors.get(name)?.shape;
    if (stored?.join() === shape.join()) continue;
    const found = stored === undefined ? 'none' : `one of shape [${stored.join(', ')}]`;
    throw invalidFile(path, `a tensor ${name} of shape [${shape.join(', ')}]`, found);
  }
}
