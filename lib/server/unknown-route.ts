/** Requests for what is not there: 404, or 405 where another method would be understood. */
import type { FastifyInstance, FastifyReply, FastifyRequest } from 'fastify';
import { ApiError } from './errors';

/** Answers what no route does; call it before any route is added. */
export function addUnknownRoute(app: FastifyInstance): void {
  const methods = new Map<string, Set<string>>();
  app.addHook('onRoute', ({ url, method }) => {
    const known = methods.get(url) ?? new Set<string>();
    for (const name of [method].flat()) known.add(name);
    methods.set(url, known);
  });
  const refuse = (request: FastifyRequest, reply: FastifyReply): ApiError => {
    const allowed = allowedMethods(methods, request);
    const path = `${request.method} ${request.url.slice(0, 200)}`;
    if (allowed.length === 0) {
      return new ApiError(404, `Unknown request URL: ${path}.`, { code: 'unknown_url' });
    }
    reply.header('allow', allowed.join(', '));
    const message = `Not allowed: ${path}. Use ${allowed.join(' or ')}.`;
    return new ApiError(405, message, { code: 'method_not_allowed' });
  };
  // Before the framework looks at a body that nobody wants.
  app.addHook('onRequest', (request, reply, done) => {
    done(request.is404 ? refuse(request, reply) : undefined);
  });
  app.setNotFoundHandler((request, reply) => {
    throw refuse(request, reply);
  });
}

function allowedMethods(
  methods: ReadonlyMap<string, ReadonlySet<string>>,
  request: FastifyRequest,
): string[] {
  const parts = request.url.split('?')[0].split('/');
  const fits = (pattern: string) => {
    const wanted = pattern.split('/');
    return (
      wanted.length === parts.length &&
      wanted.every((part, i) => (part.startsWith(':') ? parts[i] !== '' : part === parts[i]))
    );
  };
  const found = [...methods].filter(([pattern]) => fits(pattern));
  return [...new Set(found.flatMap(([, names]) => [...names]))].sort();
}
