/** A model on disk, Hugging Face folder or GGUF file: config, weights and tokenizer, each found where the form keeps it. */
import { existsSync, statSync } from 'node:fs';
import { join } from 'node:path';
import { expectedError } from '../core/errors';
import { describe } from '../core/validate';
import { readJsonFile } from '../format/file';
import { GgufFile } from '../format/gguf';
import type { SafetensorsFile } from '../format/safetensors';
import { readConfig } from './arch';
import { LAYER_KV_HEADS, storedKvHeads } from './config';
import { openGgufModel } from './gguf/model';
import { JsonFields, type JsonObject } from './json-fields';
import { readHeadsOnce } from './repeated-heads';
import { createTokenizer, missingTokenizer, type Tokenizer } from './tokenizer';
import { readFolderTokenizer } from './tokenizer-folder';
import { readGgufTokenizer } from './tokenizer-gguf';
import type { ModelConfig, WeightSource } from './types';
import { openFolderWeights } from './weights';

const MAX_CONFIG_BYTES = 2 ** 24;
const UNREAD_TOKENIZER =
  'has no tokenizer.json, only a tokenizer.model, which is not read (saving its tokenizer with transformers makes one)';

export interface StoredFolder {
  form: 'folder';
  /** config.json */
  json: JsonObject;
  /** Each tensor's file. */
  files: ReadonlyMap<string, SafetensorsFile>;
  /** KV heads that the tensors have in every layer. */
  kvHeads: number;
}

export interface StoredGguf {
  form: 'gguf';
  file: GgufFile;
}

export interface Checkpoint {
  /** What it is stored in. */
  readonly stored: StoredFolder | StoredGguf;
  readonly config: ModelConfig;
  readonly weights: WeightSource;
  /** Builds the tokenizer; one that refuses text where the checkpoint has none. */
  tokenizer(): Tokenizer;
}

/**
 * Opens a checkpoint; the caller closes its weights.
 * @throws GqaError INVALID_ARGUMENT where path is nothing, INVALID_FILE, UNSUPPORTED_MODEL
 */
export function openCheckpoint(path: string): Checkpoint {
  const stats = typeof path === 'string' ? statSync(path, { throwIfNoEntry: false }) : undefined;
  if (stats === undefined) {
    const expected = 'a Hugging Face folder or a .gguf file';
    const received = typeof path === 'string' ? `'${path}', which does not exist` : describe(path);
    throw expectedError('INVALID_ARGUMENT', 'path', expected, received);
  }
  return stats.isDirectory() ? openFolder(path) : openGguf(path);
}

function openFolder(folder: string): Checkpoint {
  const path = join(folder, 'config.json');
  const json = readJsonFile(path, MAX_CONFIG_BYTES) as JsonObject;
  const config = new JsonFields(path, json);
  const generationPath = join(folder, 'generation_config.json');
  const generation = new JsonFields(
    generationPath,
    existsSync(generationPath) ? readJsonFile(generationPath, MAX_CONFIG_BYTES) : {},
  );
  const weights = openFolderWeights(folder);
  return closingOnError(weights, () => {
    const hasTensor = (name: string): boolean => weights.has(name);
    const model = readConfig({ fields: config, generation, hasTensor });
    const kvHeads = config.has(LAYER_KV_HEADS) ? storedKvHeads(config) : model.kvHeads;
    return {
      stored: { form: 'folder', json, files: weights.files, kvHeads },
      config: model,
      weights: readHeadsOnce(folder, weights, model.layerKvHeads, kvHeads),
      tokenizer: () => build(folder, readFolderTokenizer(folder)),
    };
  });
}

function openGguf(path: string): Checkpoint {
  const file = new GgufFile(path);
  return closingOnError(file, () => {
    const { config, weights } = openGgufModel(file);
    return {
      stored: { form: 'gguf', file },
      config,
      weights,
      tokenizer: () => build(path, readGgufTokenizer(file)),
    };
  });
}

function build(path: string, source: Parameters<typeof createTokenizer>[0] | null): Tokenizer {
  if (source !== null) return createTokenizer(source);
  return existsSync(join(path, 'tokenizer.model'))
    ? missingTokenizer(path, UNREAD_TOKENIZER)
    : missingTokenizer(path);
}

function closingOnError<T>(file: { close(): void }, make: () => T): T {
  try {
    return make();
  } catch (error) {
    file.close();
    throw error;
  }
}
