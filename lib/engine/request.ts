/** A request, checked before the worker hears of it. */
import { randomInt } from 'node:crypto';
import { expectedError } from '../core/errors';
import {
  describe,
  requireBoolean,
  requireFinite,
  requireInteger,
  requireOptions,
} from '../core/validate';
import type { EngineRequest, RequestSampling, ResolvedRequest } from './types';

/** Alternatives beside a token at most. */
const MOST_LOGPROBS = 20;
const DEFAULT_MAX_TOKENS = 256;
/** Sampling that changes nothing: greedy, without penalties. */
const NEUTRAL = {
  temperature: 0,
  topK: 0,
  topP: 1,
  minP: 0,
  repetitionPenalty: 1,
  frequencyPenalty: 0,
  presencePenalty: 0,
};

/**
 * A copy that was checked, `maxTokens` no more than the context has room for.
 *
 * @throws GqaError INVALID_ARGUMENT, OUT_OF_RANGE, NON_FINITE, EMPTY_PROMPT, CONTEXT_EXCEEDED
 */
export function checkRequest(
  request: EngineRequest,
  vocabSize: number,
  room: { contextLength: number; windowed: boolean },
): ResolvedRequest {
  requireOptions(request, 'request');
  const prompt = checkPrompt(request.prompt, vocabSize, room);
  const asked = request.maxTokens ?? DEFAULT_MAX_TOKENS;
  const most = asked === Infinity ? asked : requireInteger(asked, 'request.maxTokens', 0);
  const left = room.windowed ? Number.MAX_SAFE_INTEGER : room.contextLength - prompt.length;
  return {
    prompt,
    maxTokens: Math.min(most, left),
    sampling: checkSampling(request.sampling ?? {}, vocabSize),
    stop: checkStops(request.stop ?? []),
    logprobs: requireInteger(request.logprobs ?? -1, 'request.logprobs', -1, MOST_LOGPROBS),
    priority: requireFinite(request.priority ?? 0, 'request.priority'),
    user: requireText(request.user, 'request.user'),
    signal: requireSignal(request.signal),
    ignoreEos: requireBoolean(request.ignoreEos ?? false, 'request.ignoreEos'),
  };
}

function checkPrompt(
  prompt: unknown,
  vocabSize: number,
  { contextLength, windowed }: { contextLength: number; windowed: boolean },
): readonly number[] {
  if (!Array.isArray(prompt)) {
    throw expectedError('INVALID_ARGUMENT', 'request.prompt', 'token ids', describe(prompt));
  }
  if (prompt.length === 0) {
    throw expectedError('EMPTY_PROMPT', 'request.prompt', 'at least one token', 'none');
  }
  if (!windowed && prompt.length > contextLength) {
    const expected = `at most ${contextLength} tokens, the context length,`;
    throw expectedError('CONTEXT_EXCEEDED', 'request.prompt', expected, String(prompt.length));
  }
  for (let i = 0; i < prompt.length; i++) {
    const id: unknown = prompt[i];
    const fits = Number.isInteger(id) && (id as number) >= 0 && (id as number) < vocabSize;
    if (!fits) requireInteger(id, `request.prompt[${i}]`, 0, vocabSize - 1);
  }
  return [...(prompt as number[])];
}

function checkSampling(given: Partial<RequestSampling>, vocabSize: number): RequestSampling {
  const name = 'request.sampling';
  requireOptions(given, name);
  const number = (key: keyof typeof NEUTRAL, min: number, max: number): number => {
    const value = requireFinite(given[key] ?? NEUTRAL[key], `${name}.${key}`);
    if (value >= min && value <= max) return value;
    const expected =
      max === Infinity ? `a number of at least ${min}` : `a number from ${min} to ${max}`;
    throw expectedError('OUT_OF_RANGE', `${name}.${key}`, expected, describe(value));
  };
  const seed = given.seed ?? randomInt(2 ** 32);
  return {
    temperature: number('temperature', 0, Infinity),
    topK: requireInteger(given.topK ?? NEUTRAL.topK, `${name}.topK`, 0),
    topP: number('topP', 0, 1),
    minP: number('minP', 0, 1),
    repetitionPenalty: number('repetitionPenalty', Number.MIN_VALUE, Infinity),
    frequencyPenalty: number('frequencyPenalty', -Infinity, Infinity),
    presencePenalty: number('presencePenalty', -Infinity, Infinity),
    logitBias: checkBias(given.logitBias, vocabSize),
    seed: requireInteger(seed, `${name}.seed`, Number.MIN_SAFE_INTEGER),
  };
}

function checkBias(
  bias: RequestSampling['logitBias'],
  vocabSize: number,
): RequestSampling['logitBias'] {
  if (bias === undefined) return undefined;
  const name = 'request.sampling.logitBias';
  requireOptions(bias, name);
  for (const [id, value] of Object.entries(bias)) {
    requireInteger(id === '' ? NaN : Number(id), `${name}: a token id`, 0, vocabSize - 1);
    requireFinite(value, `${name}[${id}]`);
  }
  return { ...bias };
}

function checkStops(stop: unknown): readonly string[] {
  if (!Array.isArray(stop)) {
    throw expectedError('INVALID_ARGUMENT', 'request.stop', 'an array of texts', describe(stop));
  }
  stop.forEach((text: unknown, i) => {
    if (typeof text === 'string' && text !== '') return;
    const expected = 'a text that is not empty';
    throw expectedError('INVALID_ARGUMENT', `request.stop[${i}]`, expected, describe(text));
  });
  return [...(stop as string[])];
}

function requireText(text: unknown, argument: string): string | undefined {
  if (text === undefined || typeof text === 'string') return text;
  throw expectedError('INVALID_ARGUMENT', argument, 'a text', describe(text));
}

function requireSignal(signal: unknown): AbortSignal | undefined {
  if (signal === undefined || signal instanceof AbortSignal) return signal;
  throw expectedError('INVALID_ARGUMENT', 'request.signal', 'an AbortSignal', describe(signal));
}
