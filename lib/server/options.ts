/** The options of createServer, with their defaults. */
import { expectedError } from '../core/errors';
import { describe, requireInteger, requireOptions } from '../core/validate';

export type LogLevel = 'fatal' | 'error' | 'warn' | 'info' | 'debug' | 'trace' | 'silent';
export const LOG_LEVELS: readonly LogLevel[] = [
  'fatal',
  'error',
  'warn',
  'info',
  'debug',
  'trace',
  'silent',
];

export interface ServerOptions {
  /** With any, requests need one of them as a bearer token; default none. */
  apiKeys?: readonly string[];
  /** Bytes of a request's body at most, default 4 MiB. */
  bodyLimit?: number;
  /** Milliseconds in which a request must have arrived whole, default 60,000. */
  requestTimeoutMs?: number;
  /** Milliseconds that a client may take nothing of its stream before it is given up, default 120,000. */
  stallTimeoutMs?: number;
  /** Least severe that is logged, default 'silent'; JSON lines to stderr. */
  logLevel?: LogLevel;
}

export type ResolvedServerOptions = Required<ServerOptions>;

/** @throws GqaError INVALID_ARGUMENT, OUT_OF_RANGE */
export function resolveServerOptions(options: ServerOptions = {}): ResolvedServerOptions {
  requireOptions(options, 'options');
  const {
    apiKeys = [],
    bodyLimit = 4 * 2 ** 20,
    requestTimeoutMs = 60_000,
    stallTimeoutMs = 120_000,
    logLevel = 'silent',
  } = options;
  if (!Array.isArray(apiKeys) || !apiKeys.every((key) => typeof key === 'string' && key !== '')) {
    const expected = 'a list of texts that are not empty';
    // The keys themselves are in no message.
    throw expectedError('INVALID_ARGUMENT', 'options.apiKeys', expected, 'something else');
  }
  if (!LOG_LEVELS.includes(logLevel)) {
    const expected = `one of ${LOG_LEVELS.join(', ')}`;
    throw expectedError('INVALID_ARGUMENT', 'options.logLevel', expected, describe(logLevel));
  }
  return {
    apiKeys,
    bodyLimit: requireInteger(bodyLimit, 'options.bodyLimit', 1),
    requestTimeoutMs: requireInteger(requestTimeoutMs, 'options.requestTimeoutMs', 1),
    stallTimeoutMs: requireInteger(stallTimeoutMs, 'options.stallTimeoutMs', 1),
    logLevel,
  };
}
