/** RoPE as config.json describes it. */
import { isObject, JsonFields, unsupported } from './json-fields';
import type { ModelConfig, RopeScaling } from './types';

/** Where the scaling of a file does not say how much of each head is turned. */
export interface RotaryDefaults {
  /** The share of a head's elements that is turned; without it, models that turn less than all are refused. */
  partialRotary?: number;
  theta?: number;
}

/**
 * Older files have rope_theta and rope_scaling, those of transformers 5 one dict rope_parameters; a file may have both,
 * and then the dict is the newer.
 */
export function readRope(
  config: JsonFields,
  headDim: number,
  { partialRotary, theta: usualTheta = 10_000 }: RotaryDefaults = {},
): ModelConfig['rope'] {
  const parameters = config.object('rope_parameters');
  const scaling = config.has('rope_parameters') ? parameters : config.object('rope_scaling');
  const theta = parameters.has('rope_theta')
    ? parameters.positive('rope_theta')
    : config.positive('rope_theta', usualTheta);
  for (const perLayer of ['full_attention', 'sliding_attention']) {
    if (isObject(parameters.raw(perLayer))) {
      throw unsupported('rope_parameters', 'one set for all layers', 'one per layer type');
    }
  }
  const rope = { theta, scaling: readScaling(scaling, config) };
  const rotaryDim = readRotaryDim(config, parameters, headDim, partialRotary);
  return rotaryDim === headDim ? rope : { ...rope, rotaryDim };
}

function readRotaryDim(
  config: JsonFields,
  parameters: JsonFields,
  headDim: number,
  partialRotary: number | undefined,
): number {
  const name = 'partial_rotary_factor';
  const share = parameters.positive(name, config.positive(name, partialRotary ?? 1));
  if (partialRotary === undefined && share !== 1) throw unsupported(name, '1', String(share));
  const rotaryDim = Math.floor(share * headDim);
  if (share <= 1 && rotaryDim > 0 && rotaryDim % 2 === 0) return rotaryDim;
  throw unsupported(name, `a share that makes an even part of ${headDim} dims`, String(share));
}

const SCALINGS = 'default, linear, llama3, yarn, longrope';

export function readScaling(scaling: JsonFields, config: JsonFields): RopeScaling | null {
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
    case 'yarn':
      return readYarn(scaling, config);
    // The name of LongRoPE while it was new.
    case 'su':
    case 'longrope':
      return readLongRope(scaling, config);
    default:
      throw unsupported('RoPE scaling', SCALINGS, `'${type.slice(0, 80)}'`);
  }
}

/** LongRoPE with the divisors of its long range. */
function readLongRope(scaling: JsonFields, config: JsonFields): RopeScaling {
  const name = 'original_max_position_embeddings';
  const context = config.integer('max_position_embeddings', 2048);
  const originalContext = scaling.integer(name, config.integer(name, context, 2), 2);
  const factor = scaling.positive('factor', context / originalContext);
  const usual = factor <= 1 ? 1 : Math.sqrt(1 + Math.log(factor) / Math.log(originalContext));
  return {
    type: 'factors',
    factors: readFactors(scaling, 'long_factor'),
    attentionFactor: scaling.positive('attention_factor', usual),
  };
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

function readYarn(scaling: JsonFields, config: JsonFields): RopeScaling {
  const originalContext = scaling.integer(
    'original_max_position_embeddings',
    config.integer('max_position_embeddings', 2048),
  );
  const factor = scaling.positive('factor');
  return {
    type: 'yarn',
    factor,
    betaFast: scaling.positive('beta_fast', 32),
    betaSlow: scaling.positive('beta_slow', 1),
    originalContext,
    truncate: scaling.flag('truncate', true),
    attentionFactor: scaling.positive('attention_factor', yarnAttentionFactor(scaling, factor)),
  };
}

function yarnAttentionFactor(scaling: JsonFields, factor: number): number {
  const growth = (slope: number): number => (factor <= 1 ? 1 : 0.1 * slope * Math.log(factor) + 1);
  if (!scaling.has('mscale') || !scaling.has('mscale_all_dim')) return growth(1);
  return growth(scaling.positive('mscale')) / growth(scaling.positive('mscale_all_dim'));
}
