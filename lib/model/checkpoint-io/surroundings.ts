/** What stands around the tensors of a checkpoint: a folder's other files, GGUF's metadata. */
import type { FloatDType } from '../../core/dtype';
import type { GgufEntry } from '../../format/gguf-value';
import type { ModelConfig } from '../types';
import { withKvHeads } from './config-json';
import { KV_HEADS_KEY, kvHeadsEntry, modelEntries } from './gguf-metadata';
import { mainDType } from './plan';
import { storedHeads } from './plan-folder';
import { tokenizerFiles } from './tokenizer-files';
import { tokenizerEntries } from './tokenizer-metadata';
import type { CheckpointSource } from './types';

/** Files of a folder that hold for any checkpoint of the same model: tokenizer, generation, licence. */
const COPIED = new Set([
  'tokenizer.json',
  'tokenizer_config.json',
  'tokenizer.model',
  'special_tokens_map.json',
  'added_tokens.json',
  'vocab.json',
  'merges.txt',
  'generation_config.json',
  'chat_template.jinja',
  'chat_template.json',
  'NOTICE',
]);

const TORCH_DTYPES: Readonly<Record<FloatDType, string>> = {
  f32: 'float32',
  f16: 'float16',
  bf16: 'bfloat16',
};

export function isCopied(name: string): boolean {
  return COPIED.has(name) || name.startsWith('LICENSE');
}

/** By name, the files that say what the tensors of a folder are; from GGUF the tokenizer's too. */
export function configFiles(source: CheckpointSource, target: ModelConfig): Record<string, string> {
  const { stored, configJson } = source;
  const heads = storedHeads(target.layerKvHeads);
  const json = withKvHeads(configJson, target.layerKvHeads, heads);
  if (stored.form === 'folder') return { 'config.json': asText(json) };
  const dtype = TORCH_DTYPES[mainDType(source)];
  return {
    'config.json': asText({ ...json, torch_dtype: dtype }),
    ...tokenizerFiles(stored.file, target.contextLength),
  };
}

function asText(json: object): string {
  return `${JSON.stringify(json, null, 2)}\n`;
}

/** GGUF's metadata: the source's own with the new KV heads, or made from a folder. */
export function metadataOf(source: CheckpointSource, target: ModelConfig): Map<string, GgufEntry> {
  const { stored, path } = source;
  if (stored.form === 'gguf') {
    return new Map(stored.file.entries).set(KV_HEADS_KEY, kvHeadsEntry(target.layerKvHeads));
  }
  return new Map([
    ...modelEntries(path, target, mainDType(source)),
    ...tokenizerEntries(path, target, () => source.tokenizer()),
  ]);
}
