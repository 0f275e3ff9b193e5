/** POST /v1/completions: text that goes on. */
import type { FastifyInstance } from 'fastify';
import { answer, type AnswerForm } from '../answer';
import type { ServerContext } from '../context';
import { refusal } from '../errors';
import { identities, type AnswerIdentity } from '../identity';
import { textLength, textLogprobs } from '../logprobs';
import { checkedIds, promptIds } from '../prompt';
import {
  createJob,
  refuseUnsupported,
  requireModel,
  type GenerationBody,
  type Job,
  type Refusals,
} from '../requests';
import {
  generationFields,
  integer,
  MOST_CHOICES,
  responses,
  streamable,
  tokenId,
  usageSchema,
  type Schema,
} from '../schemas';

type PromptBody = string | string[] | number[] | number[][];

interface CompletionBody extends GenerationBody {
  prompt: PromptBody;
  logprobs?: number | null;
}

/** As of OpenAI's API. */
const DEFAULT_MAX_TOKENS = 16;

const REFUSALS: Refusals = {
  echo: (value) => value === false,
  suffix: (value) => value === '',
  best_of: (value) => value === 1,
};

const PROMPT: Schema = {
  title: 'a string, a list of strings, a list of token ids, or a list of such lists',
  anyOf: [
    { type: 'string' },
    { type: 'array', minItems: 1, maxItems: MOST_CHOICES, items: { type: 'string' } },
    { type: 'array', minItems: 1, items: tokenId },
    {
      type: 'array',
      minItems: 1,
      maxItems: MOST_CHOICES,
      items: { type: 'array', minItems: 1, items: tokenId },
    },
  ],
};

const BODY: Schema = {
  type: 'object',
  required: ['model', 'prompt'],
  properties: {
    ...generationFields,
    prompt: PROMPT,
    logprobs: { ...integer(0, 20), description: 'Most likely tokens told beside each.' },
  },
};

const COMPLETION: Schema = {
  type: 'object',
  required: ['id', 'object', 'created', 'model', 'choices', 'usage'],
  properties: {
    id: { type: 'string' },
    object: { const: 'text_completion' },
    created: { type: 'integer' },
    model: { type: 'string' },
    choices: {
      type: 'array',
      items: {
        type: 'object',
        required: ['index', 'text', 'logprobs', 'finish_reason'],
        properties: {
          index: { type: 'integer' },
          text: { type: 'string' },
          logprobs: { type: ['object', 'null'] },
          finish_reason: { enum: ['stop', 'length'] },
        },
      },
    },
    usage: usageSchema,
  },
};

/** Every prompt as ids. */
async function promptsOf(
  context: ServerContext,
  prompt: PromptBody,
): Promise<(readonly number[])[]> {
  const list = Array.isArray(prompt) ? prompt : [prompt];
  if (typeof list[0] === 'number') return [checkedIds(context, list as number[])];
  const limit = context.engine.model.contextLength;
  const prompts: (readonly number[])[] = [];
  for (const one of list as (string | number[])[]) {
    prompts.push(
      typeof one === 'string'
        ? await promptIds(context, one, { bos: true, limit })
        : checkedIds(context, one),
    );
  }
  return prompts;
}

function completionForm(head: AnswerIdentity, job: Job, hasTokens: boolean): AnswerForm {
  // Characters of each choice so far.
  const offsets = new Array<number>(job.prompts.length * job.n).fill(0);
  const event = (choices: object[]) =>
    job.includeUsage ? { ...head, choices, usage: null } : { ...head, choices };
  return {
    hasTokens,
    whole: (choices, usage) => ({
      ...head,
      choices: choices.map(({ result, tokens }, index) => ({
        index,
        text: result.text,
        logprobs: hasTokens ? textLogprobs(tokens, 0) : null,
        finish_reason: result.finishReason,
      })),
      usage,
    }),
    opening: () => null,
    piece: (index, { text, tokens }) => {
      const logprobs = hasTokens ? textLogprobs(tokens, offsets[index]) : null;
      offsets[index] += textLength(tokens);
      return event([{ index, text, logprobs, finish_reason: null }]);
    },
    closing: (index, { finishReason }) =>
      event([{ index, text: '', logprobs: null, finish_reason: finishReason }]),
    usage: (usage) => ({ ...head, choices: [], usage }),
  };
}

export function addCompletions(app: FastifyInstance, context: ServerContext): void {
  const identity = identities(context.engine, 'cmpl');
  app.post<{ Body: CompletionBody }>(
    '/v1/completions',
    {
      schema: {
        summary: 'Continue a text.',
        security: [{ key: [] }],
        body: BODY,
        response: responses(
          { 200: streamable('The completion.', COMPLETION) },
          ...[400, 401, 404, 413, 415, 429, 500, 503],
        ),
      },
    },
    async (request, reply) => {
      const { body } = request;
      requireModel(context, body.model);
      refuseUnsupported(body, REFUSALS);
      context.requireReady();
      const logprobs = body.logprobs ?? -1;
      const prompts = await promptsOf(context, body.prompt).catch((error: unknown) => {
        throw refusal(error, 1);
      });
      const maxTokens = body.max_tokens ?? DEFAULT_MAX_TOKENS;
      const job = createJob(context, body, { prompts, maxTokens, logprobs });
      const form = completionForm(identity('text_completion'), job, logprobs >= 0);
      return answer(context, request, reply, { job, form });
    },
  );
}
