/** A model in a GGUF file: its config and its weights, told as Hugging Face does. */
import type { GgufFile } from '../../format/gguf';
import { readConfig } from '../arch';
import { ggufArchitecture } from '.';
import { GgufMetadata } from './metadata';
import { GgufWeights } from './weights';
import { JsonFields } from '../json-fields';
import type { ModelConfig } from '../types';

/** @throws GqaError INVALID_FILE, UNSUPPORTED_MODEL */
export function openGgufModel(file: GgufFile): { config: ModelConfig; weights: GgufWeights } {
  const metadata = new GgufMetadata(file);
  const architecture = ggufArchitecture(metadata);
  const weights = new GgufWeights(metadata, architecture);
  const config = readConfig({
    fields: new JsonFields(file.path, architecture.configJson(metadata)),
    generation: new JsonFields(file.path, {}),
    hasTensor: (name) => weights.has(name),
  });
  return { config, weights };
}
