/** GET /stats: the engine's figures as JSON, for the page. */
import type { FastifyInstance } from 'fastify';
import type { ServerContext } from '../context';
import { answer, responses } from '../schemas';

export function addStats(app: FastifyInstance, context: ServerContext): void {
  const { model, tokenizer } = context.engine;
  const { kind, isa, threads } = model.backend;
  const about = {
    id: model.id,
    contextLength: model.contextLength,
    bytes: model.bytes,
    chat: tokenizer.available && tokenizer.hasChatTemplate,
    backend: { kind, isa, threads },
  };
  app.get(
    '/stats',
    {
      schema: {
        summary: 'What the engine does now, and has done so far.',
        security: [{ key: [] }],
        response: responses({ 200: answer('The figures.', { type: 'object' }) }, 401),
      },
    },
    () => ({
      model: about,
      draining: context.draining,
      uptimeSeconds: Math.floor(process.uptime()),
      engine: context.engine.stats(),
    }),
  );
}
