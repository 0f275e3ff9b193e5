/** RoPE as config.json describes it. */
import { isObject, JsonFields, unsupported } from './json-fields';
import type { ModelConfig, RopeScaling } from './types';

/**
 * Older files have rope_theta and rope_scaling, those of transformers 5 one dict rope_parameters; a file may have both,
 * and then the dict is the newer.
 */
export function readRope(config: JsonFields): ModelConfig['rope'] {
  const parameters = config.object('rope_parameters');
  const scaling = config.has('rope_parameters') ? parameters : config.object('rope_scaling');
  const theta = parameters.has('rope_theta')
    ? parameters.positive('rope_theta')
    : config.positive('rope_theta', 10_000);
  for (const source of [config, parameters]) {
    const turned = source.positive('partial_rotary_factor', 1);
    if (turned !== 1) throw unsupported('partial_rotary_factor', '1', String(turned));
  }
  for (const perLayer of ['full_attention', 'sliding_attention']) {
    if (isObject(parameters.raw(perLayer))) {
      throw unsupported('rope_parameters', 'one set for all layers', 'one per layer type');
    }
  }
  return { theta, scaling: readScaling(scaling) };
}

function readScaling(scaling: JsonFields): RopeScaling | null {
  const type = scaling.text('rope_type') ?? scaling.text('type') ?? 'default';
  switch (type) {
    case 'default':
      return null;
    case 'linear':
      return { type, factor: scaling.positive('factor') };
    // Not Hugging Face's: GGUF states what is made of Llama 3's numbers.
    case 'factors':
      return { type, factors: readFactors(scaling, 'factors') };
    case 'llama3': {
      const low = scaling.positive('low_freq_factor');
      const high = scaling.positive('high_freq_factor');
      if (high <= low) throw scaling.wrong('high_freq_factor', `a number above ${low}`, high);
      return {
        type,
        factor: scaling.positive('factor'),
        lowFreqFactor: low,
        highFreqFactor: high,
        originalContext: scaling.integer('original_max_position_embeddings'),
      };
    }
    default:
      throw unsupported('RoPE scaling', 'default, linear, llama3', `'${type.slice(0, 80)}'`);
  }
}

/** A list of positive numbers. */
export function readFactors(scaling: JsonFields, name: string): number[] {
  const factors = scaling.raw(name);
  if (!Array.isArray(factors)) throw scaling.wrong(name, 'a list of numbers', factors);
  return factors.map((factor: unknown, i) => {
    const fields = new JsonFields('config.json', { [`${name}[${i}]`]: factor });
    return fields.positive(`${name}[${i}]`);
  });
}
