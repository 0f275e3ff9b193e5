/** The OpenAPI document, from the schemas that requests are checked by. */
import swagger from '@fastify/swagger';
import type { FastifyInstance } from 'fastify';

const DESCRIPTION = `An OpenAI-compatible API over one model. Fields of OpenAI's API that are not listed are accepted
and ignored where they change nothing in an answer, and refused where they would.`;

/** Call it before the routes that it shall describe. */
export async function addOpenApi(app: FastifyInstance): Promise<void> {
  await app.register(swagger, {
    openapi: {
      openapi: '3.1.0',
      info: { title: 'gqa serve', description: DESCRIPTION, version: '1' },
      components: { securitySchemes: { key: { type: 'http', scheme: 'bearer' } } },
    },
  });
  app.get('/openapi.json', { schema: { hide: true } }, () => app.swagger());
}
