/** From the fields of OpenAI's API to requests of the engine. */
import { randomInt } from 'node:crypto';
import type { EngineRequest } from '../engine/types';
import type { ServerContext } from './context';
import { ApiError, contextExceeded, invalid } from './errors';
import { MOST_CHOICES } from './schemas';

/** Fields that chat and plain completions share, as their schema lets them through. */
export interface GenerationBody {
  model: string;
  max_tokens?: number | null;
  temperature?: number | null;
  top_p?: number | null;
  top_k?: number | null;
  min_p?: number | null;
  presence_penalty?: number | null;
  frequency_penalty?: number | null;
  repetition_penalty?: number | null;
  logit_bias?: Record<string, number> | null;
  seed?: number | null;
  n?: number | null;
  stop?: string | string[] | null;
  stream?: boolean | null;
  stream_options?: { include_usage?: boolean | null } | null;
  user?: string | null;
  priority?: number | null;
  ignore_eos?: boolean | null;
}

/** Fields of OpenAI's API that would change an answer and that this server does not have, with what they mean off. */
export type Refusals = Record<string, (value: unknown) => boolean>;

/** n answers to each of some prompts: answer j to prompt i is choice i * n + j. */
export interface Job {
  model: string;
  prompts: readonly (readonly number[])[];
  n: number;
  stream: boolean;
  includeUsage: boolean;
  /** The request of a choice, but for its signal. */
  request(choice: number): EngineRequest;
}

export function requireModel({ engine }: ServerContext, model: string): void {
  if (model === engine.model.id) return;
  const message = `The model '${model}' does not exist here: this server has '${engine.model.id}'.`;
  throw new ApiError(404, message, { param: 'model', code: 'model_not_found' });
}

/** @throws ApiError 400 for a field that is set to what is not implemented */
export function refuseUnsupported(body: object, refusals: Refusals): void {
  for (const [field, isOff] of Object.entries(refusals)) {
    const value = (body as Record<string, unknown>)[field];
    if (value === undefined || value === null || isOff(value)) continue;
    throw invalid(field, `This server does not support '${field}'.`, 'unsupported_parameter');
  }
}

function logitBias(
  bias: Record<string, number> | null | undefined,
  vocabSize: number,
): Record<number, number> | undefined {
  if (bias === null || bias === undefined) return undefined;
  const entries = Object.entries(bias);
  const unknown = entries.find(([id]) => Number(id) >= vocabSize);
  if (unknown !== undefined) {
    const message = `Invalid key in 'logit_bias': ${unknown[0]} is no token id of this model, which has ${vocabSize}.`;
    throw invalid('logit_bias', message);
  }
  return Object.fromEntries(entries.map(([id, value]) => [Number(id), value]));
}

/** Tokens of an answer at most: what was asked for, or what the prompt leaves. */
function answerLength(prompt: number, asked: number | undefined, limit: number): number {
  if (prompt >= limit) throw contextExceeded(limit, prompt);
  if (asked === undefined) return limit - prompt;
  if (prompt + asked > limit) throw contextExceeded(limit, prompt, asked);
  return asked;
}

/** Seeds of choices follow each other, within the integers that a number holds exactly. */
function seedOf(seed: number, choice: number): number {
  return seed > Number.MAX_SAFE_INTEGER - choice ? seed - choice : seed + choice;
}

export interface JobDetails {
  prompts: readonly (readonly number[])[];
  /** Undefined: what the context leaves. */
  maxTokens: number | undefined;
  logprobs: number;
}

/** @throws ApiError 400 */
export function createJob(
  { engine }: ServerContext,
  body: GenerationBody,
  { prompts, maxTokens, logprobs }: JobDetails,
): Job {
  const n = body.n ?? 1;
  if (prompts.length * n > MOST_CHOICES) {
    const message = `${prompts.length} prompts of ${n} answers each are more than the ${MOST_CHOICES} answers that a request may ask for.`;
    throw invalid('n', message);
  }
  const { contextLength, config } = engine.model;
  for (const prompt of prompts) answerLength(prompt.length, maxTokens, contextLength);
  const seed = body.seed ?? randomInt(2 ** 32);
  const sampling = {
    temperature: body.temperature ?? 1,
    topK: Math.max(body.top_k ?? 0, 0),
    topP: body.top_p ?? 1,
    minP: body.min_p ?? 0,
    repetitionPenalty: body.repetition_penalty ?? 1,
    frequencyPenalty: body.frequency_penalty ?? 0,
    presencePenalty: body.presence_penalty ?? 0,
    logitBias: logitBias(body.logit_bias, config.vocabSize),
  };
  const stop = typeof body.stop === 'string' ? [body.stop] : (body.stop ?? []);
  return {
    model: body.model,
    prompts,
    n,
    stream: body.stream ?? false,
    includeUsage: body.stream_options?.include_usage ?? false,
    request: (choice) => {
      const prompt = prompts[Math.floor(choice / n)];
      return {
        prompt,
        maxTokens: answerLength(prompt.length, maxTokens, contextLength),
        sampling: { ...sampling, seed: seedOf(seed, choice) },
        stop,
        logprobs,
        priority: body.priority ?? 0,
        user: body.user ?? undefined,
        ignoreEos: body.ignore_eos ?? false,
      };
    },
  };
}
