/** GET /health, /health/ready, /metrics: for what looks after the server. */
import type { FastifyInstance } from 'fastify';
import type { ServerContext } from '../context';
import { answer, responses } from '../schemas';

const STATUS = answer('Well.', { type: 'object', properties: { status: { const: 'ok' } } });

export function addHealth(app: FastifyInstance, context: ServerContext): void {
  app.get(
    '/health',
    {
      schema: {
        summary: 'Live: 503 means that only a restart helps.',
        response: responses({ 200: STATUS }, 503),
      },
    },
    () => {
      if (!context.engine.stats().live) context.requireReady();
      return { status: 'ok' };
    },
  );
  app.get(
    '/health/ready',
    {
      schema: {
        summary: 'Ready: 503 means that requests should go elsewhere.',
        response: responses({ 200: STATUS }, 503),
      },
    },
    () => {
      context.requireReady();
      return { status: 'ok' };
    },
  );
  const { registry } = context.metrics;
  app.get(
    '/metrics',
    {
      schema: {
        summary: 'Metrics in the text format of Prometheus.',
        response: {
          200: {
            description: 'The metrics.',
            content: { 'text/plain': { schema: { type: 'string' } } },
          },
        },
      },
    },
    async (_request, reply) => {
      const text = await registry.metrics();
      return reply.type(registry.contentType).send(text);
    },
  );
}
