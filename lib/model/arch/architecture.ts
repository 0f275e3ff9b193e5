/** What a file of this folder says about an architecture. */
import type { Precision } from '../../core/precision';
import type { ConfigSource } from '../config';
import type { LanguageModel, ModelConfig, WeightSource } from '../types';

export interface Architecture<C extends ModelConfig = ModelConfig> {
  /** What its configs have as `architecture`. */
  readonly name: string;
  /** config.json's `model_type`s that it computes. */
  readonly modelTypes: readonly string[];
  /** From Hugging Face's fields, whatever the file's form. @throws GqaError INVALID_FILE, UNSUPPORTED_MODEL */
  readConfig(source: ConfigSource): C;
  /** Reads the weights, by Hugging Face's names. @throws GqaError INVALID_FILE, OUT_OF_MEMORY */
  load(config: C, weights: WeightSource, precision: Precision): LanguageModel;
}
