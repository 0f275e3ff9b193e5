/**
 * Checkpoints as a WeightSource: Hugging Face folders (one safetensors file, or shards and an index) and GGUF. Tensors
 * are read when asked for and not kept.
 */
import { existsSync } from 'node:fs';
import { basename, join } from 'node:path';
import { GqaError } from '../core/errors';
import { invalidFile, readJsonFile, type StoredTensor } from '../format/file';
import type { GgufFile } from '../format/gguf';
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

  loadMatrix(name: string, shape: readonly number[]): MatrixTensor {
    return this.load(name, shape);
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

export class GgufWeights implements WeightSource {
  constructor(
    private readonly file: GgufFile,
    private readonly heads: number,
    private readonly layerKvHeads: readonly number[],
  ) {}

  has(name: string): boolean {
    return this.file.tensors.has(ggufName(name));
  }

  load(name: string, shape: readonly number[]): WeightTensor {
    const stored = this.find(name, shape);
    return this.inOrder(stored, this.file.read(stored));
  }

  loadMatrix(name: string, shape: readonly number[]): MatrixTensor {
    const stored = this.find(name, shape);
    return this.inOrder(stored, this.file.readStored(stored));
  }

  /** The tensor's name in the file. */
  private find(name: string, shape: readonly number[]): string {
    const stored = ggufName(name);
    const info = this.file.tensors.get(stored);
    if (info === undefined) throw missing(`${name} (${stored})`);
    checkShape(this.file.path, stored, info.shape, shape);
    return stored;
  }

  private inOrder<T extends StoredTensor>(stored: string, tensor: T): T {
    if (stored.includes('.attn_q.')) return halfSplit(tensor, this.heads);
    const layer = /^blk\.(\d+)\.attn_k\./.exec(stored)?.[1];
    if (layer !== undefined) return halfSplit(tensor, this.layerKvHeads[Number(layer)]);
    return tensor;
  }

  close(): void {
    this.file.close();
  }
}

const GGUF_GLOBAL_NAMES: ReadonlyMap<string, string> = new Map([
  ['model.embed_tokens', 'token_embd'],
  ['model.norm', 'output_norm'],
  ['lm_head', 'output'],
]);

const GGUF_LAYER_NAMES: ReadonlyMap<string, string> = new Map([
  ['input_layernorm', 'attn_norm'],
  ['self_attn.q_proj', 'attn_q'],
  ['self_attn.k_proj', 'attn_k'],
  ['self_attn.v_proj', 'attn_v'],
  ['self_attn.o_proj', 'attn_output'],
  ['post_attention_layernorm', 'ffn_norm'],
  ['mlp.gate_proj', 'ffn_gate'],
  ['mlp.up_proj', 'ffn_up'],
  ['mlp.down_proj', 'ffn_down'],
]);

/** 'model.layers.3.self_attn.q_proj.weight' to 'blk.3.attn_q.weight'; a name that GGUF has no word for stays. */
export function ggufName(name: string): string {
  const match = /^(?:model\.layers\.(\d+)\.)?(.+)\.(weight|bias)$/.exec(name);
  if (match === null) return name;
  const [, layer, part, kind] = match;
  const stored = (layer === undefined ? GGUF_GLOBAL_NAMES : GGUF_LAYER_NAMES).get(part);
  if (stored === undefined) return name;
  return layer === undefined ? `${stored}.${kind}` : `blk.${layer}.${stored}.${kind}`;
}

const HUGGING_FACE_NAMES: ReadonlyMap<string, string> = new Map(
  [...GGUF_GLOBAL_NAMES, ...GGUF_LAYER_NAMES].map(([name, stored]) => [stored, name]),
);

/** The inverse of ggufName. */
export function huggingFaceName(stored: string): string {
  const match = /^(?:blk\.(\d+)\.)?(.+)\.(weight|bias)$/.exec(stored);
  if (match === null) return stored;
  const [, layer, part, kind] = match;
  const name = HUGGING_FACE_NAMES.get(part);
  if (name === undefined || GGUF_LAYER_NAMES.has(name) !== (layer !== undefined)) return stored;
  return layer === undefined ? `${name}.${kind}` : `model.layers.${layer}.${name}.${kind}`;
}

/**
 * GGUF orders the rows of a Q or K projection for interleaved RoPE: row (h, r, s) of [heads, headDim / 2, 2] turns
 * with its neighbour. Half-split RoPE wants it at (h, s, r) of [heads, 2, headDim / 2].
 */
export function halfSplit<T extends StoredTensor>(tensor: T, heads: number): T {
  return withRowsMoved(tensor, heads, 'half-split');
}

/** The inverse of halfSplit. */
export function interleaved<T extends StoredTensor>(tensor: T, heads: number): T {
  return withRowsMoved(tensor, heads, 'interleaved');
}

function withRowsMoved<T extends StoredTensor>(
  tensor: T,
  heads: number,
  order: 'half-split' | 'interleaved',
): T {
  const { shape, data } = tensor;
  const rows = shape[0];
  // Elements of a row, or bytes of its blocks.
  const columns = data.length / rows;
  const pairs = rows / heads / 2;
  const out = data.slice();
  for (let split = 0; split < rows; split++) {
    const head = Math.floor(split / (2 * pairs));
    const side = Math.floor(split / pairs) % 2;
    const paired = 2 * (head * pairs + (split % pairs)) + side;
    const [to, from] = order === 'half-split' ? [split, paired] : [paired, split];
    out.set(data.subarray(from * columns, (from + 1) * columns), to * columns);
  }
  return { ...tensor, data: out };
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
