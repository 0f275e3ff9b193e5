/** POST /tokenize, /detokenize: text to the model's token ids and back. */
import type { FastifyInstance } from 'fastify';
import type { ServerContext } from '../context';
import { refusal } from '../errors';
import { chatMessages, MESSAGES, type MessageBody } from '../messages';
import { promptIds } from '../prompt';
import { answer, flag, modelName, responses, tokenId } from '../schemas';
import { ApiError } from '../errors';
import { requireModel } from '../requests';

interface TokenizeBody {
  model?: string;
  prompt?: string;
  messages?: MessageBody[];
  add_special_tokens?: boolean | null;
}

interface DetokenizeBody {
  model?: string;
  tokens: number[];
}

const COUNTED = {
  type: 'object',
  required: ['tokens', 'count', 'max_model_len'],
  properties: {
    tokens: { type: 'array', items: { type: 'integer' } },
    count: { type: 'integer' },
    max_model_len: { type: 'integer' },
  },
};

const DECODED = {
  type: 'object',
  required: ['prompt'],
  properties: { prompt: { type: 'string' } },
};

async function tokenize(context: ServerContext, body: TokenizeBody) {
  const { tokenizer, model } = context.engine;
  if ((body.prompt === undefined) === (body.messages === undefined)) {
    const message = "Give either 'prompt' or 'messages'.";
    throw new ApiError(400, message, { param: 'prompt', code: 'missing_required_parameter' });
  }
  const text = body.prompt ?? tokenizer.applyChatTemplate(chatMessages(body.messages!));
  // A chat template writes BOS itself where it is wanted.
  const bos = body.add_special_tokens ?? body.messages === undefined;
  const tokens = await promptIds(context, text, { bos, limit: Infinity });
  return { tokens, count: tokens.length, max_model_len: model.contextLength };
}

export function addTokens(app: FastifyInstance, context: ServerContext): void {
  const { engine } = context;
  const checked = async <T>(model: string | undefined, run: () => Promise<T> | T): Promise<T> => {
    if (model !== undefined) requireModel(context, model);
    try {
      return await run();
    } catch (error) {
      throw refusal(error, 1);
    }
  };
  app.post<{ Body: TokenizeBody }>(
    '/tokenize',
    {
      schema: {
        summary: 'Token ids of a text, or of messages in the chat template.',
        security: [{ key: [] }],
        body: {
          type: 'object',
          properties: {
            model: modelName,
            prompt: { type: 'string' },
            messages: MESSAGES,
            add_special_tokens: { ...flag, description: 'With the tokens that begin a text.' },
          },
        },
        response: responses({ 200: answer('The ids.', COUNTED) }, 400, 401, 404, 413, 415),
      },
    },
    ({ body }) => checked(body.model, () => tokenize(context, body)),
  );
  app.post<{ Body: DetokenizeBody }>(
    '/detokenize',
    {
      schema: {
        summary: 'The text of token ids, special tokens included.',
        security: [{ key: [] }],
        body: {
          type: 'object',
          required: ['tokens'],
          properties: { model: modelName, tokens: { type: 'array', items: tokenId } },
        },
        response: responses({ 200: answer('The text.', DECODED) }, 400, 401, 404, 413, 415),
      },
    },
    ({ body }) =>
      checked(body.model, () => ({
        prompt: engine.tokenizer.decode(body.tokens, { skipSpecialTokens: false }),
      })),
  );
}
