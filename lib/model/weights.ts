/**
 * Hugging Face folders as a WeightSource: one safetensors file, or shards and an index. Tensors are read when asked for
 * and not kept. gguf/ has the one of GGUF.
 */
import { existsSync } from 'node:fs';
import { basename, join } from 'node:path';
import { GqaError } from '../core/errors';
import { allocate, invalidFile, readJsonFile } from '../format/file';
import { MXFP4_BLOCK, MXFP4_BLOCK_BYTES, mxfp4AsQ8_0 } from '../format/mxfp4';
import { SafetensorsFile } from '../format/safetensors';
import { JsonFields } from './json-fields';
import type { MatrixTensor, WeightSource, WeightTensor } from './types';

const SINGLE = 'model.safetensors';
const INDEX = 'model.safetensors.index.json';
/** The largest real indexes, of mixtures with thousands of experts, have a few megabytes. */
const MAX_INDEX_BYTES = 2 ** 26;

/** @throws GqaError INVALID_FILE */
export function openFolderWeights(folder: string): SafetensorsWeights {
  if (existsSync(join(folder, SINGLE))) {
    const file = new SafetensorsFile(join(folder, SINGLE));
    return new SafetensorsWeights(new Map([...file.tensors.keys()].map((name) => [name, file])));
  }
  const index = join(folder, INDEX);
  if (!existsSync(index)) {
    throw invalidFile(folder, `${SINGLE} or ${INDEX}`, 'neither');
  }
  return new SafetensorsWeights(openShards(folder, index));
}

export class SafetensorsWeights implements WeightSource {
  /** `files`: each tensor's. */
  constructor(readonly files: ReadonlyMap<string, SafetensorsFile>) {}

  has(name: string): boolean {
    return this.files.has(name);
  }

  load(name: string, shape: readonly number[]): WeightTensor {
    const file = this.files.get(name);
    const entry = file?.tensors.get(name);
    if (file === undefined || entry === undefined) throw missing(name);
    checkShape(file.path, name, entry.shape, shape);
    return file.read(name);
  }

  /** What is stored in MXFP4, as `name`_blocks and `name`_scales, is told as Q8_0, of the same numbers. */
  loadMatrix(name: string, shape: readonly number[]): MatrixTensor {
    if (this.has(name) || !this.has(`${name}_blocks`)) return this.load(name, shape);
    const rows = shape.slice(0, -1);
    const blocks = shape[shape.length - 1] / MXFP4_BLOCK;
    const codes = this.bytes(`${name}_blocks`, [...rows, blocks, MXFP4_BLOCK_BYTES]);
    const scales = this.bytes(`${name}_scales`, [...rows, blocks]);
    return { shape, dtype: 'q8_0', data: mxfp4AsQ8_0(name, codes, scales) };
  }

  private bytes(name: string, shape: readonly number[]): Uint8Array {
    const file = this.files.get(name);
    const entry = file?.tensors.get(name);
    if (file === undefined || entry === undefined) throw missing(name);
    checkShape(file.path, name, entry.shape, shape);
    if (entry.dtype !== 'U8') throw invalidFile(file.path, `${name} of U8`, entry.dtype);
    const data = allocate(name, entry.bytes, () => new Uint8Array(entry.bytes));
    file.readBytes(name, data, 0);
    return data;
  }

  close(): void {
    for (const file of new Set(this.files.values())) file.close();
  }
}

/** Every tensor of the index in the shard that the index names. */
function openShards(folder: string, index: string): Map<string, SafetensorsFile> {
  const json = new JsonFields(index, readJsonFile(index, MAX_INDEX_BYTES));
  const weightMap = json.raw('weight_map');
  const names = new JsonFields(`${index}: weight_map`, weightMap);
  const opened = new Map<string, SafetensorsFile>();
  const files = new Map<string, SafetensorsFile>();
  try {
    for (const name of Object.keys(weightMap as object)) {
      const shard = names.text(name) ?? '';
      // A path would lead out of the folder.
      if (shard === '' || shard !== basename(shard)) throw names.wrong(name, 'a file name', shard);
      const file = opened.get(shard) ?? new SafetensorsFile(join(folder, shard));
      opened.set(shard, file);
      if (!file.tensors.has(name)) throw invalidFile(file.path, `a tensor ${name}`, 'none');
      files.set(name, file);
    }
  } catch (error) {
    for (const file of opened.values()) file.close();
    throw error;
  }
  return files;
}

function checkShape(
  path: string,
  name: string,
  stored: readonly number[],
  expected: readonly number[],
): void {
  if (stored.length !== expected.length || stored.some((size, i) => size !== expected[i])) {
    throw invalidFile(path, `${name} of shape [${expected.join(', ')}]`, `[${stored.join(', ')}]`);
  }
}

function missing(name: string): GqaError {
  return new GqaError('INVALID_FILE', `The checkpoint has no tensor ${name}`, {
    argument: name,
    expected: 'a tensor',
    received: 'none',
  });
}
