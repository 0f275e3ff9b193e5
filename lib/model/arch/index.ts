/** Architectures by the name that ModelConfig.architecture gives: a new one is a file here and a row. */
import type { Precision } from '../../core/precision';
import { expectedError } from '../../core/errors';
import type { LanguageModel, ModelConfig, WeightSource } from '../types';
import { loadLlama } from './llama';

type ArchitectureLoader = (
  config: ModelConfig,
  weights: WeightSource,
  precision: Precision,
) => LanguageModel;

const ARCHITECTURES: Readonly<Record<string, ArchitectureLoader>> = {
  llama: loadLlama,
};

/** Loads the weights into the architecture that the config names. @throws GqaError UNSUPPORTED_MODEL, INVALID_FILE */
export function loadArchitecture(
  config: ModelConfig,
  weights: WeightSource,
  precision: Precision = 'exact',
): LanguageModel {
  if (!Object.hasOwn(ARCHITECTURES, config.architecture)) {
    const known = Object.keys(ARCHITECTURES).join(', ');
    throw expectedError(
      'UNSUPPORTED_MODEL',
      'architecture',
      `one of ${known}`,
      config.architecture,
    );
  }
  return ARCHITECTURES[config.architecture](config, weights, precision);
}
