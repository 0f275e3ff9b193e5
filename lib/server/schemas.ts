/**
 * JSON schemas of requests and answers: what ajv checks, and what /openapi.json says. `title` is how a message names
 * what was expected where several types would do. Fields that are not named here are accepted and ignored.
 */
export type Schema = Record<string, unknown>;

function nullable(schema: Schema): Schema {
  return { ...schema, type: [schema.type, 'null'] };
}

export function integer(minimum: number, maximum = Number.MAX_SAFE_INTEGER): Schema {
  return nullable({ type: 'integer', minimum, maximum });
}

function number(minimum: number, maximum: number): Schema {
  return nullable({ type: 'number', minimum, maximum });
}

export const flag: Schema = { type: ['boolean', 'null'] };
export const text: Schema = { type: ['string', 'null'] };
export const tokenId: Schema = { type: 'integer', minimum: 0, maximum: 2 ** 31 - 1 };
export const modelName: Schema = { type: 'string', description: 'The id that /v1/models gives.' };

/** Choices of one request, all prompts together. */
export const MOST_CHOICES = 128;

/** Fields that chat and plain completions share. */
export const generationFields: Record<string, Schema> = {
  model: modelName,
  max_tokens: { ...integer(1), description: 'Tokens of the answer at most.' },
  temperature: { ...number(0, 2), description: '0 takes the most likely token; default 1.' },
  top_p: { ...number(0, 1), description: 'The fewest tokens that hold this probability.' },
  top_k: { ...integer(-1), description: 'The k most likely tokens; 0 and -1 mean all.' },
  min_p: { ...number(0, 1), description: 'Tokens at least this fraction as likely as the first.' },
  presence_penalty: number(-2, 2),
  frequency_penalty: number(-2, 2),
  repetition_penalty: nullable({ type: 'number', exclusiveMinimum: 0, maximum: 100 }),
  logit_bias: {
    type: ['object', 'null'],
    propertyNames: { pattern: '^[0-9]{1,10}$' },
    additionalProperties: { type: 'number', minimum: -100, maximum: 100 },
    description: 'Token id -> what is added to its logit.',
  },
  seed: integer(Number.MIN_SAFE_INTEGER),
  n: { ...integer(1, MOST_CHOICES), description: 'Answers to each prompt.' },
  stop: {
    title: 'a string that is not empty, or up to 16 of them',
    anyOf: [
      { type: 'string', minLength: 1 },
      { type: 'array', maxItems: 16, items: { type: 'string', minLength: 1 } },
      { type: 'null' },
    ],
  },
  stream: { ...flag, description: 'Answer as server-sent events.' },
  stream_options: {
    type: ['object', 'null'],
    properties: { include_usage: flag },
  },
  user: { ...text, description: 'Whose request it is: users share the machine evenly.' },
  priority: { ...integer(-100, 100), description: 'Larger goes first; default 0.' },
  ignore_eos: { ...flag, description: "Go on behind the model's end of text." },
};

export const errorSchema: Schema = {
  type: 'object',
  required: ['error'],
  properties: {
    error: {
      type: 'object',
      required: ['message', 'type', 'param', 'code'],
      properties: {
        message: { type: 'string' },
        type: { type: 'string' },
        param: { type: ['string', 'null'] },
        code: { type: ['string', 'null'] },
      },
    },
  },
};

const ERRORS: Record<number, string> = {
  400: 'The request is not well-formed, or asks for what cannot be had.',
  401: 'The API key is missing or wrong.',
  404: 'No such model.',
  413: 'The body is too large.',
  415: 'The body is no application/json.',
  429: 'Too many requests wait; Retry-After says when to try again.',
  500: 'The server failed.',
  501: 'Not implemented.',
  503: 'The server is draining, or its engine has died.',
};

/** What a route answers: its own answers, and errors of these statuses. */
export function responses(own: Record<string, Schema>, ...errors: number[]): Schema {
  const declared = errors.map((status) => [
    status,
    { description: ERRORS[status], content: { 'application/json': { schema: errorSchema } } },
  ]);
  return { ...own, ...(Object.fromEntries(declared) as Schema) };
}

export function answer(description: string, schema: Schema): Schema {
  return { description, content: { 'application/json': { schema } } };
}

/** An answer that is JSON, or a stream of events where the request says so. */
export function streamable(description: string, schema: Schema): Schema {
  return {
    description,
    content: {
      'application/json': { schema },
      'text/event-stream': { schema: { type: 'string' } },
    },
  };
}

export const usageSchema: Schema = {
  type: 'object',
  required: ['prompt_tokens', 'completion_tokens', 'total_tokens'],
  properties: {
    prompt_tokens: { type: 'integer' },
    completion_tokens: { type: 'integer' },
    total_tokens: { type: 'integer' },
    prompt_tokens_details: { type: 'object', properties: { cached_tokens: { type: 'integer' } } },
  },
};
