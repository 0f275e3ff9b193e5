/** Whatever goes wrong, as OpenAI's API says it: { error: { message, type, param, code } } with an HTTP status. */
import type { FastifyError } from 'fastify';
import { GqaError } from '../core/errors';

export type ErrorType = 'invalid_request_error' | 'requests' | 'server_error';

export interface ErrorBody {
  error: { message: string; type: ErrorType; param: string | null; code: string | null };
}

interface ApiErrorDetails {
  type?: ErrorType;
  /** The field of the request at fault, as `messages[0].role`. */
  param?: string | null;
  code?: string | null;
  /** Seconds after which to try again. */
  retryAfter?: number;
  cause?: unknown;
}

/** An error that is told to the client as it stands. */
export class ApiError extends Error {
  readonly type: ErrorType;
  readonly param: string | null;
  readonly code: string | null;
  readonly retryAfter: number | undefined;

  constructor(
    readonly status: number,
    message: string,
    details: ApiErrorDetails = {},
  ) {
    super(message, details.cause === undefined ? undefined : { cause: details.cause });
    this.type = details.type ?? (status >= 500 ? 'server_error' : 'invalid_request_error');
    this.param = details.param ?? null;
    this.code = details.code ?? null;
    this.retryAfter = details.retryAfter;
  }

  get body(): ErrorBody {
    const { message, type, param, code } = this;
    return { error: { message, type, param, code } };
  }
}

/** A field that is well-formed but asks for what cannot be had. */
export function invalid(param: string, message: string, code = 'invalid_value'): ApiError {
  return new ApiError(400, message, { param, code });
}

export function contextExceeded(limit: number, prompt: number | string, answer = 0): ApiError {
  const asked =
    answer === 0
      ? `your prompt has ${prompt} tokens, which leaves no room for an answer`
      : `you asked for ${Number(prompt) + answer} tokens (${prompt} in the prompt, ${answer} for the answer)`;
  return new ApiError(400, `This model's context holds ${limit} tokens, but ${asked}.`, {
    param: answer === 0 ? null : 'max_tokens',
    code: 'context_length_exceeded',
  });
}

export function unavailable(message: string, code: string, retryAfter?: number): ApiError {
  return new ApiError(503, message, { code, retryAfter });
}

const CLIENT_FAULTS = new Set<string>([
  'EMPTY_PROMPT',
  'INVALID_ARGUMENT',
  'OUT_OF_RANGE',
  'NON_FINITE',
  'NO_TOKENIZER',
]);

/** What `tokenizer` or `engine.submit` threw: the request's own fault, mostly. */
export function refusal(error: unknown, retryAfter: number): unknown {
  if (!(error instanceof GqaError)) return error;
  const code: string = error.code;
  if (code === 'QUEUE_FULL') {
    const message = 'Too many requests are waiting: try again later.';
    const details = { code: 'rate_limit_exceeded', retryAfter, cause: error } as const;
    return new ApiError(429, message, { ...details, type: 'requests' });
  }
  if (code === 'CONTEXT_EXCEEDED') {
    return new ApiError(400, error.message, { code: 'context_length_exceeded', cause: error });
  }
  if (!CLIENT_FAULTS.has(code)) return error;
  return new ApiError(400, error.message, {
    param: error.argument,
    code: code.toLowerCase(),
    cause: error,
  });
}

interface SchemaIssue {
  keyword: string;
  instancePath: string;
  params: Record<string, unknown>;
  message?: string;
  data?: unknown;
  parentSchema?: { title?: string; type?: string | readonly string[] };
}

/** '/messages/0/role' -> 'messages[0].role'. */
function fieldName(pointer: string): string {
  return pointer
    .slice(1)
    .split('/')
    .map((part) => part.replace(/~1/g, '/').replace(/~0/g, '~'))
    .reduce((path, part) => {
      if (/^\d+$/.test(part)) return `${path}[${part}]`;
      return path === '' ? part : `${path}.${part}`;
    }, '');
}

function kindOf(value: unknown): string {
  if (value === null || value === undefined) return 'null';
  if (Array.isArray(value)) return 'an array';
  if (typeof value === 'object') return 'an object';
  return typeof value === 'boolean' ? 'a boolean' : `a ${typeof value}`;
}

function expectation({ keyword, params, message, parentSchema }: SchemaIssue): string {
  if (parentSchema?.title !== undefined) return `expected ${parentSchema.title}`;
  if (keyword === 'enum') {
    const values = params.allowedValues as unknown[];
    return `expected one of ${values.map((value) => JSON.stringify(value)).join(', ')}`;
  }
  if (keyword === 'type') return `expected ${[params.type].flat().join(' or ')}`;
  return `it ${message ?? 'does not fit'}`;
}

/** The refusal of a request that does not fit its schema. */
function schemaError(issues: readonly SchemaIssue[], context: string | undefined): ApiError {
  // Where alternatives failed, theirs come first and the choice itself last.
  const issue = issues[issues.length - 1];
  const param = fieldName(issue.instancePath);
  if (issue.keyword === 'required') {
    const missing = String(issue.params.missingProperty);
    const name = param === '' ? missing : `${param}.${missing}`;
    const message = `Missing required parameter: '${name}'.`;
    return new ApiError(400, message, { param: name, code: 'missing_required_parameter' });
  }
  const name = param === '' ? `the ${context ?? 'body'}` : `'${param}'`;
  const typed = issue.keyword === 'type' || issue.keyword === 'anyOf';
  const message = typed
    ? `Invalid type for ${name}: ${expectation(issue)}, but got ${kindOf(issue.data)} instead.`
    : `Invalid value for ${name}: ${expectation(issue)}.`;
  const code = typed ? 'invalid_type' : 'invalid_value';
  return new ApiError(400, message, { param: param === '' ? null : param, code });
}

const FRAMEWORK: Record<string, { message: string; code: string }> = {
  FST_ERR_CTP_BODY_TOO_LARGE: {
    message: 'The request body is larger than this server takes.',
    code: 'body_too_large',
  },
  FST_ERR_CTP_INVALID_MEDIA_TYPE: {
    message: 'Unsupported media type: send application/json.',
    code: 'unsupported_media_type',
  },
  FST_ERR_CTP_INVALID_CONTENT_LENGTH: {
    message: 'The body is not as long as its Content-Length.',
    code: 'invalid_body',
  },
  FST_ERR_BAD_URL: { message: 'The URL is not well-formed.', code: 'invalid_url' },
};

/** Any error at all, for the client; what is not the client's business stays out of the message. */
export function toApiError(error: unknown): ApiError {
  if (error instanceof ApiError) return error;
  if (error instanceof GqaError) {
    if (error.code === 'DISPOSED') {
      return unavailable('The server is shutting down.', 'shutting_down', 1);
    }
  } else if (error instanceof Error) {
    const { code, statusCode, validation, validationContext } = error as FastifyError;
    if (validation !== undefined) {
      return schemaError(validation, validationContext);
    }
    const known = FRAMEWORK[code];
    if (statusCode !== undefined && statusCode < 500) {
      return new ApiError(statusCode, known?.message ?? error.message, {
        code: known?.code ?? null,
      });
    }
  }
  return new ApiError(500, 'The server had an error while processing your request.', {
    code: 'internal_error',
    cause: error,
  });
}
