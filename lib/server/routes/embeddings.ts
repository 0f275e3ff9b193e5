/** POST /v1/embeddings: refused. A model that continues text makes no embeddings worth the name. */
import type { FastifyInstance } from 'fastify';
import { ApiError } from '../errors';
import { responses } from '../schemas';

export function addEmbeddings(app: FastifyInstance): void {
  app.post(
    '/v1/embeddings',
    {
      schema: {
        summary: 'Not implemented.',
        security: [{ key: [] }],
        body: { type: 'object' },
        response: responses({}, 400, 401, 413, 415, 501),
      },
    },
    () => {
      const message =
        'This server makes no embeddings: its model was trained to continue text, and its hidden states are no measure of meaning. Use a model made for embeddings.';
      throw new ApiError(501, message, { code: 'not_implemented' });
    },
  );
}
