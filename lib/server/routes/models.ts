/** GET /v1/models, /v1/models/:model. */
import type { FastifyInstance } from 'fastify';
import type { ServerContext } from '../context';
import { requireModel } from '../requests';
import { answer, responses, type Schema } from '../schemas';

const MODEL: Schema = {
  type: 'object',
  required: ['id', 'object', 'created', 'owned_by'],
  properties: {
    id: { type: 'string' },
    object: { const: 'model' },
    created: { type: 'integer', description: 'Seconds since 1970.' },
    owned_by: { type: 'string' },
    max_model_len: { type: 'integer', description: 'Tokens of prompt and answer together.' },
  },
};

const LIST: Schema = {
  type: 'object',
  required: ['object', 'data'],
  properties: { object: { const: 'list' }, data: { type: 'array', items: MODEL } },
};

export function addModels(app: FastifyInstance, context: ServerContext): void {
  const { id, createdAt, contextLength } = context.engine.model;
  const model = {
    id,
    object: 'model',
    created: Math.floor(createdAt / 1000),
    owned_by: 'gqa',
    max_model_len: contextLength,
  };
  app.get(
    '/v1/models',
    {
      schema: {
        summary: 'The models: one.',
        security: [{ key: [] }],
        response: responses({ 200: answer('The list.', LIST) }, 401),
      },
    },
    () => ({ object: 'list', data: [model] }),
  );
  app.get<{ Params: { model: string } }>(
    '/v1/models/:model',
    {
      schema: {
        summary: 'A model by its id.',
        security: [{ key: [] }],
        params: { type: 'object', properties: { model: { type: 'string' } } },
        response: responses({ 200: answer('The model.', MODEL) }, 400, 401, 404),
      },
    },
    ({ params }) => {
      requireModel(context, params.model);
      return model;
    },
  );
}
