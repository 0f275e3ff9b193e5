/** Architectures: a new one is a file here and a row. */
import type { Precision } from '../../core/precision';
import { expectedError } from '../../core/errors';
import type { ConfigSource } from '../config';
import { unsupported } from '../json-fields';
import type { LanguageModel, ModelConfig, WeightSource } from '../types';
import type { Architecture } from './architecture';
import { chatGlm } from './chatglm';
import { falcon } from './falcon';
import { gemma2 } from './gemma2';
import { gemma3 } from './gemma3';
import { glm, glm4 } from './glm';
import { gptBigCode } from './gpt-bigcode';
import { gptNeox } from './gpt-neox';
import { gptOss } from './gpt-oss';
import { llama } from './llama';
import { mistral } from './mistral';
import { mixtral } from './mixtral';
import { phi3 } from './phi3';
import { qwen2 } from './qwen2';
import { qwen3 } from './qwen3';

/** All that are known. */
export const ARCHITECTURES: readonly Architecture[] = [
  chatGlm,
  falcon,
  gemma2,
  gemma3,
  glm,
  glm4,
  gptBigCode,
  gptNeox,
  gptOss,
  llama,
  mistral,
  mixtral,
  phi3,
  qwen2,
  qwen3,
];

/**
 * @returns the config, of the architecture that `model_type` names
 * @throws GqaError INVALID_FILE, UNSUPPORTED_MODEL
 */
export function readConfig(source: ConfigSource): ModelConfig {
  const type = source.fields.text('model_type') ?? '';
  const found = ARCHITECTURES.find(({ modelTypes }) => modelTypes.includes(type));
  if (found !== undefined) return found.readConfig(source);
  const known = ARCHITECTURES.flatMap(({ modelTypes }) => modelTypes);
  throw unsupported('model_type', known.join(', '), `'${type.slice(0, 80)}'`);
}

/** Loads the weights into the architecture that the config names. @throws GqaError UNSUPPORTED_MODEL, INVALID_FILE */
export function loadArchitecture(
  config: ModelConfig,
  weights: WeightSource,
  precision: Precision = 'exact',
): LanguageModel {
  const found = ARCHITECTURES.find(({ name }) => name === config.architecture);
  if (found !== undefined) return found.load(config, weights, precision);
  const known = ARCHITECTURES.map(({ name }) => name).join(', ');
  throw expectedError('UNSUPPORTED_MODEL', 'architecture', `one of ${known}`, config.architecture);
}
