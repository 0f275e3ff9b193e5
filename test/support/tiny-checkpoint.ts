/** Folders of tiny random Llamas with the embedded model's tokenizer: all that a command needs, in milliseconds. */
import { copyFileSync, mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { f32ToBf16Bits } from '../../lib/core/half';
import type { ModelConfig } from '../../lib/model/types';
import { embeddedModel } from './package';
import { writeSafetensors } from './reference-checkpoint';
import { huggingFaceConfig } from './tiny-llama';
import { referenceConfig, TINY, tinyWeights } from './tiny-training';

/** Its vocabulary is that of the tokenizer. */
export const TINY_STORIES: ModelConfig = {
  ...TINY,
  vocabSize: 2048,
  bosTokenId: 1,
  eosTokenIds: [0],
};

export interface TinyCheckpoint {
  config?: ModelConfig;
  seed?: number;
  /** A tensor that gets a NaN. */
  damaged?: string;
}

/** Writes bf16 weights; returns the path. */
export function writeTinyCheckpoint(path: string, options: TinyCheckpoint = {}): string {
  const { config = TINY_STORIES, seed = 1, damaged } = options;
  mkdirSync(path);
  const json = { ...huggingFaceConfig(referenceConfig(config)), tie_word_embeddings: true };
  writeFileSync(join(path, 'config.json'), JSON.stringify(json));
  for (const name of ['tokenizer.json', 'tokenizer_config.json']) {
    copyFileSync(join(embeddedModel, name), join(path, name));
  }
  const tensors = Array.from(tinyWeights(config, seed), ([name, { shape, data }]) => {
    const bits = Uint16Array.from(data, (x) => f32ToBf16Bits(x));
    if (name === damaged) bits[0] = 0x7fc0;
    return { name, shape, dtype: 'BF16', bytes: new Uint8Array(bits.buffer) };
  });
  writeFileSync(join(path, 'model.safetensors'), writeSafetensors(tensors));
  return path;
}
