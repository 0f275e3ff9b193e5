/** The HTTP server: routes of OpenAI's API, health, metrics and a chat page. */
export { createServer, type GqaServer } from './server';
export { LOG_LEVELS, type LogLevel, type ServerOptions } from './options';
