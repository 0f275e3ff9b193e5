/** Small checkpoints in folders and GGUF, of random weights and with the embedded model's tokenizer. */
import { copyFileSync, mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { writeGguf, type GgufTensor } from './gguf';
import { embeddedModel } from './package';
import { huggingFaceName, writeSafetensors } from './reference-checkpoint';
import type { ReferenceConfig } from './reference-llama';
import { ggufMetadata, huggingFaceConfig, randomTensors } from './tiny-llama';

export const TINY: ReferenceConfig = {
  vocab: 2048,
  hidden: 24,
  intermediate: 40,
  layers: 3,
  heads: 6,
  kvHeads: 6,
  headDim: 8,
  eps: 1e-5,
  theta: 500,
  ropePairs: 'halves',
};

/** A folder of multi-head attention; `changes` to config.json, `edit` to its tensors. */
export function writeTinyFolder(
  path: string,
  changes: Record<string, unknown> = {},
  edit: (tensors: GgufTensor[]) => GgufTensor[] = (tensors) => tensors,
): string {
  mkdirSync(path);
  const tensors = edit(randomTensors(TINY, 'F32', 5)).map((t) => ({
    ...t,
    name: huggingFaceName(t.name),
    dtype: t.type,
  }));
  writeFileSync(join(path, 'model.safetensors'), writeSafetensors(tensors));
  const config = { ...huggingFaceConfig(TINY), ...changes };
  writeFileSync(join(path, 'config.json'), JSON.stringify(config));
  for (const name of ['tokenizer.json', 'tokenizer_config.json']) {
    copyFileSync(join(embeddedModel, name), join(path, name));
  }
  return path;
}

/** The same as GGUF without a tokenizer, matrices of `type`. */
export function writeTinyGguf(
  path: string,
  type: 'F32' | 'Q8_0',
  extra: GgufTensor[] = [],
): string {
  // Rows of whole blocks.
  const config = { ...TINY, vocab: 64, hidden: 32, intermediate: 64, headDim: 16 };
  const tensors = [...randomTensors(config, type, 5), ...extra];
  writeFileSync(path, writeGguf({ metadata: ggufMetadata(config), tensors }));
  return path;
}
