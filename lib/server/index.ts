/** The HTTP server: routes of OpenAI's API, health, metrics and a chat page. */
import { createRequire } from 'node:module';
import type { EngineLike } from '../engine/types';
import type { ServerOptions } from './options';
import type * as server from './server';

export { LOG_LEVELS, type LogLevel, type ServerOptions } from './options';
export type { GqaServer } from './server';

const load = createRequire(__filename);

/**
 * An OpenAI-compatible HTTP server of an engine, not yet listening; the engine stays the caller's (docs/server.md). The
 * framework is loaded by the first call.
 *
 * @throws GqaError INVALID_ARGUMENT, OUT_OF_RANGE
 */
export async function createServer(
  engine: EngineLike,
  options: ServerOptions = {},
): Promise<server.GqaServer> {
  const library = load('./server') as typeof server;
  return await library.createServer(engine, options);
}
