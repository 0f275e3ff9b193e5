/** The model that a plan is for: a preset, a config.json, a Hugging Face folder, a GGUF file. Weights are not read. */
import { readdirSync, statSync } from 'node:fs';
import { basename, dirname, join, resolve } from 'node:path';
import { readJsonFile } from '../../format/file';
import { GgufFile } from '../../format/gguf';
import { SafetensorsFile } from '../../format/safetensors';
import { shapeFromConfig } from './architectures';
import { shapeFromGguf } from './gguf-shape';
import { isPreset, preset } from './presets';
import type { ModelShape } from './shape';
import type { StoredWeights } from './weights';

const MAX_CONFIG_BYTES = 2 ** 24;

export interface PlannedModel {
  shape: ModelShape;
  source: 'preset' | 'config' | 'folder' | 'gguf';
  /** What the checkpoint's tensors take; null where there are none to look at. */
  stored: StoredWeights | null;
}

/** Elements and bytes of many tensors. */
function storedIn(tensors: Iterable<{ shape: readonly number[]; bytes: number }>): StoredWeights {
  let [parameters, bytes] = [0, 0];
  for (const tensor of tensors) {
    parameters += tensor.shape.reduce((a, b) => a * b, 1);
    bytes += tensor.bytes;
  }
  return { parameters, bytes };
}

function openGguf(path: string): PlannedModel {
  const file = new GgufFile(path);
  try {
    // Divisors of RoPE's frequencies are no parameters.
    const weights = [...file.tensors].filter(([name]) => !name.startsWith('rope_'));
    const stored = storedIn(weights.map(([, info]) => info));
    return { shape: shapeFromGguf(basename(path), file), source: 'gguf', stored };
  } finally {
    file.close();
  }
}

function openConfig(path: string, name: string): ModelShape {
  return shapeFromConfig(name, path, readJsonFile(path, MAX_CONFIG_BYTES));
}

function openFolder(folder: string): PlannedModel {
  const shape = openConfig(join(folder, 'config.json'), basename(resolve(folder)));
  const files = readdirSync(folder).filter((name) => name.endsWith('.safetensors'));
  if (files.length === 0) return { shape, source: 'folder', stored: null };
  const parts = files.map((name) => {
    const file = new SafetensorsFile(join(folder, name));
    file.close();
    return storedIn(file.tensors.values());
  });
  const sum = (of: (part: StoredWeights) => number): number =>
    parts.reduce((total, part) => total + of(part), 0);
  const stored = { parameters: sum((part) => part.parameters), bytes: sum((part) => part.bytes) };
  return { shape, source: 'folder', stored };
}

/**
 * @param model the name of a preset, or else a path
 * @throws GqaError INVALID_ARGUMENT (neither, with the presets that come close), INVALID_FILE, UNSUPPORTED_MODEL
 */
export function openModelShape(model: string): PlannedModel {
  const stats = isPreset(model.toLowerCase())
    ? undefined
    : statSync(model, { throwIfNoEntry: false });
  if (stats === undefined) return { shape: preset(model), source: 'preset', stored: null };
  if (stats.isDirectory()) return openFolder(model);
  if (!model.endsWith('.json')) return openGguf(model);
  const name = basename(dirname(resolve(model)));
  return { shape: openConfig(model, name), source: 'config', stored: null };
}
