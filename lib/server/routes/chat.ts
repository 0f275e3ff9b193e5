/** POST /v1/chat/completions: the next message of a conversation. */
import type { FastifyInstance } from 'fastify';
import { answer, type AnswerForm } from '../answer';
import type { ServerContext } from '../context';
import { invalid, refusal } from '../errors';
import { identities, type AnswerIdentity } from '../identity';
import { chatLogprobs } from '../logprobs';
import { chatMessages, MESSAGES, type MessageBody } from '../messages';
import { promptIds } from '../prompt';
import {
  createJob,
  refuseUnsupported,
  requireModel,
  type GenerationBody,
  type Job,
  type Refusals,
} from '../requests';
import {
  flag,
  generationFields,
  integer,
  responses,
  streamable,
  usageSchema,
  type Schema,
} from '../schemas';

interface ChatBody extends GenerationBody {
  messages: MessageBody[];
  max_completion_tokens?: number | null;
  logprobs?: boolean | null;
  top_logprobs?: number | null;
}

const isEmpty = (value: unknown) => Array.isArray(value) && value.length === 0;
const isNone = (value: unknown) => value === 'none' || value === 'auto';

const REFUSALS: Refusals = {
  tools: isEmpty,
  tool_choice: isNone,
  functions: isEmpty,
  function_call: isNone,
  response_format: (value) => (value as { type?: unknown }).type === 'text',
  modalities: (value) => Array.isArray(value) && value.every((name) => name === 'text'),
  audio: () => false,
  web_search_options: () => false,
};

const BODY: Schema = {
  type: 'object',
  required: ['model', 'messages'],
  properties: {
    ...generationFields,
    messages: MESSAGES,
    max_completion_tokens: { ...integer(1), description: 'The newer name of max_tokens.' },
    logprobs: { ...flag, description: 'Tell the log probability of each token.' },
    top_logprobs: { ...integer(0, 20), description: 'Most likely tokens told beside each.' },
  },
};

const COMPLETION: Schema = {
  type: 'object',
  required: ['id', 'object', 'created', 'model', 'choices', 'usage'],
  properties: {
    id: { type: 'string' },
    object: { const: 'chat.completion' },
    created: { type: 'integer' },
    model: { type: 'string' },
    choices: {
      type: 'array',
      items: {
        type: 'object',
        required: ['index', 'message', 'logprobs', 'finish_reason'],
        properties: {
          index: { type: 'integer' },
          message: {
            type: 'object',
            required: ['role', 'content'],
            properties: { role: { const: 'assistant' }, content: { type: 'string' } },
          },
          logprobs: { type: ['object', 'null'] },
          finish_reason: { enum: ['stop', 'length'] },
        },
      },
    },
    usage: usageSchema,
  },
};

async function chatPrompt(context: ServerContext, messages: MessageBody[]): Promise<number[]> {
  const { tokenizer, model } = context.engine;
  if (tokenizer.available && !tokenizer.hasChatTemplate) {
    const message = `The model '${model.id}' has no chat template: use /v1/completions.`;
    throw invalid('messages', message, 'no_chat_template');
  }
  try {
    const text = tokenizer.applyChatTemplate(chatMessages(messages));
    // The template writes BOS itself where it is wanted.
    return await promptIds(context, text, { bos: false, limit: model.contextLength });
  } catch (error) {
    throw refusal(error, 1);
  }
}

/** Top alternatives of each token; -1: no log probabilities. */
function logprobsOf({ logprobs, top_logprobs: top }: ChatBody): number {
  if (logprobs === true) return top ?? 0;
  if ((top ?? 0) > 0) throw invalid('top_logprobs', "'top_logprobs' needs 'logprobs': true.");
  return -1;
}

function chatForm(head: AnswerIdentity, job: Job, hasTokens: boolean): AnswerForm {
  const chunk = { ...head, object: 'chat.completion.chunk' };
  const event = (choices: object[]) =>
    job.includeUsage ? { ...chunk, choices, usage: null } : { ...chunk, choices };
  return {
    hasTokens,
    whole: (choices, usage) => ({
      ...head,
      choices: choices.map(({ result, tokens }, index) => ({
        index,
        message: { role: 'assistant', content: result.text, refusal: null },
        logprobs: hasTokens ? chatLogprobs(tokens) : null,
        finish_reason: result.finishReason,
      })),
      usage,
    }),
    opening: (index) => {
      const delta = { role: 'assistant', content: '', refusal: null };
      return event([{ index, delta, logprobs: null, finish_reason: null }]);
    },
    piece: (index, { text, tokens }) => {
      const logprobs = hasTokens ? chatLogprobs(tokens) : null;
      return event([{ index, delta: { content: text }, logprobs, finish_reason: null }]);
    },
    closing: (index, { finishReason }) =>
      event([{ index, delta: {}, logprobs: null, finish_reason: finishReason }]),
    usage: (usage) => ({ ...chunk, choices: [], usage }),
  };
}

export function addChat(app: FastifyInstance, context: ServerContext): void {
  const identity = identities(context.engine, 'chatcmpl');
  app.post<{ Body: ChatBody }>(
    '/v1/chat/completions',
    {
      schema: {
        summary: 'The next message of a conversation.',
        security: [{ key: [] }],
        body: BODY,
        response: responses(
          { 200: streamable('The message.', COMPLETION) },
          ...[400, 401, 404, 413, 415, 429, 500, 503],
        ),
      },
    },
    async (request, reply) => {
      const { body } = request;
      requireModel(context, body.model);
      refuseUnsupported(body, REFUSALS);
      const logprobs = logprobsOf(body);
      context.requireReady();
      const prompts = [await chatPrompt(context, body.messages)];
      const maxTokens = body.max_completion_tokens ?? body.max_tokens ?? undefined;
      const job = createJob(context, body, { prompts, maxTokens, logprobs });
      const form = chatForm(identity('chat.completion'), job, logprobs >= 0);
      return answer(context, request, reply, { job, form });
    },
  );
}
