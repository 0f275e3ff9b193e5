/** The options of generate, checked once, with their defaults. */
import { randomInt } from 'node:crypto';
import { expectedError } from '../core/errors';
import { describe, requireFinite, requireInteger, requireOptions } from '../core/validate';
import type { Sampling } from './sampler';

export interface GenerateOptions {
  /** Tokens at most; default 256, Infinity for as many as the context holds. */
  maxTokens?: number;
  /** 0, the default, takes the most likely token each time; 1 samples from the model's own distribution. */
  temperature?: number;
  /** Sample among the k most likely tokens only; default 0, all. */
  topK?: number;
  /** Sample among the fewest most likely tokens that hold this share of the probability; default 1, all. */
  topP?: number;
  /** Sample among tokens at least this fraction as likely as the most likely one; default 0, all. */
  minP?: number;
  /** Above 1 makes tokens already in prompt or answer less likely; default 1, off. */
  repetitionPenalty?: number;
  /** An integer; the same seed gives the same text. Default: a new one each time, reported in `stats`. */
  seed?: number;
  /** Ends at the first of these texts, which is not yielded; a special token's text counts as that token. */
  stop?: string | readonly string[];
  /** Ends within one step; the pending `next()` rejects with signal.reason. */
  signal?: AbortSignal;
}

export interface ResolvedOptions {
  maxTokens: number;
  sampling: Sampling;
  stop: readonly string[];
  signal: AbortSignal | undefined;
}

const DEFAULT_MAX_TOKENS = 256;

/** @throws GqaError INVALID_ARGUMENT, OUT_OF_RANGE, NON_FINITE */
export function resolveOptions(options: GenerateOptions): ResolvedOptions {
  requireOptions(options, 'options');
  const { maxTokens = DEFAULT_MAX_TOKENS } = options;
  return {
    maxTokens:
      maxTokens === Infinity ? maxTokens : requireInteger(maxTokens, 'options.maxTokens', 0),
    sampling: resolveSampling(options),
    stop: requireStops(options.stop ?? []),
    signal: requireSignal(options.signal),
  };
}

function resolveSampling(options: GenerateOptions): Sampling {
  const { temperature = 0, topK = 0, topP = 1, minP = 0, repetitionPenalty = 1 } = options;
  const seed = options.seed ?? randomInt(2 ** 32);
  return {
    temperature: requireNumber(temperature, 'options.temperature', 0, Infinity),
    topK: requireInteger(topK, 'options.topK', 0),
    topP: requireNumber(topP, 'options.topP', 0, 1),
    minP: requireNumber(minP, 'options.minP', 0, 1),
    repetitionPenalty: requireNumber(
      repetitionPenalty,
      'options.repetitionPenalty',
      Number.MIN_VALUE,
      Infinity,
    ),
    seed: requireInteger(seed, 'options.seed', Number.MIN_SAFE_INTEGER),
  };
}

function requireNumber(value: unknown, argument: string, min: number, max: number): number {
  const number = requireFinite(value, argument);
  if (number >= min && number <= max) return number;
  const low = min === 0 ? 'of at least 0' : 'above 0';
  const expected = max === Infinity ? `a number ${low}` : `a number from ${min} to ${max}`;
  throw expectedError('OUT_OF_RANGE', argument, expected, describe(value));
}

function requireStops(value: unknown): readonly string[] {
  const stops: unknown[] = Array.isArray(value) ? value : [value];
  stops.forEach((stop, i) => {
    if (typeof stop !== 'string' || stop === '') {
      const expected = 'a text that is not empty';
      throw expectedError('INVALID_ARGUMENT', `options.stop[${i}]`, expected, describe(stop));
    }
  });
  return stops as string[];
}

export function requireSignal(value: unknown): AbortSignal | undefined {
  if (value === undefined || value instanceof AbortSignal) return value;
  throw expectedError('INVALID_ARGUMENT', 'options.signal', 'an AbortSignal', describe(value));
}
