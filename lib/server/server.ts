/** An OpenAI-compatible HTTP server over an engine. */
import { randomUUID } from 'node:crypto';
import type { IncomingMessage } from 'node:http';
import type { AddressInfo } from 'node:net';
import fastify, {
  LogController,
  type FastifyInstance,
  type FastifyReply,
  type FastifyRequest,
} from 'fastify';
import type { EngineLike } from '../engine/types';
import { addBodyParser } from './body';
import { onClientError } from './connection';
import { ClientGone, ServerContext } from './context';
import { ApiError, toApiError, unavailable } from './errors';
import { Metrics } from './metrics';
import { addOpenApi } from './openapi';
import { resolveServerOptions, type ResolvedServerOptions, type ServerOptions } from './options';
import { addChat } from './routes/chat';
import { addCompletions } from './routes/completions';
import { addEmbeddings } from './routes/embeddings';
import { addHealth } from './routes/health';
import { addModels } from './routes/models';
import { addPage } from './routes/page';
import { addStats } from './routes/stats';
import { addTokens } from './routes/tokens';
import { addUnknownRoute } from './unknown-route';

/** A client may name its request, in characters that do no harm in a log. */
const REQUEST_ID = /^[\w.:-]{1,128}$/;

/** What is written has so long to be taken before connections are closed. */
const FLUSH_MS = 1_000;

export class GqaServer {
  constructor(
    /** The framework's own instance, for further routes before `listen`. */
    readonly app: FastifyInstance,
    private readonly context: ServerContext,
  ) {}

  /** Resolves with the server's URL. Port 0 takes a free one. */
  async listen({ host, port }: { host: string; port: number }): Promise<string> {
    await this.app.listen({ host, port });
    const { address, family, port: actual } = this.app.server.address() as AddressInfo;
    return `http://${family === 'IPv6' ? `[${address}]` : address}:${actual}`;
  }

  /**
   * Takes no new requests (503), reports not ready, finishes the answers under way, at most `timeoutMs` long (default
   * without limit), then ends those that are left and closes. The engine stays with its owner.
   */
  async drain(timeoutMs = Infinity): Promise<void> {
    const { answers } = this.context;
    this.context.draining = true;
    let timer: NodeJS.Timeout | undefined;
    const timeout = new Promise<void>((resolve) => {
      if (timeoutMs !== Infinity) timer = setTimeout(resolve, timeoutMs);
    });
    await Promise.race([answers.idle(), timeout]);
    answers.abort(unavailable('The server is shutting down.', 'shutting_down', 1));
    await answers.idle();
    clearTimeout(timer);
    const closed = this.app.close();
    // Whoever does not take the end of its answer.
    const last = setTimeout(() => this.app.server.closeAllConnections(), FLUSH_MS);
    await closed;
    clearTimeout(last);
  }

  /** Ends at once what is under way, and closes. */
  close(): Promise<void> {
    return this.drain(0);
  }
}

function createApp({ bodyLimit, requestTimeoutMs, logLevel }: ResolvedServerOptions) {
  return fastify({
    bodyLimit,
    requestTimeout: requestTimeoutMs,
    http: {
      connectionsCheckingInterval: Math.min(requestTimeoutMs, 5_000),
      // Node checks neither where headers may take longer than the request.
      headersTimeout: Math.min(requestTimeoutMs, 60_000),
    },
    logger: { level: logLevel, stream: process.stderr },
    logController: new LogController({ disableRequestLogging: true }),
    // Draining answers for itself.
    return503OnClosing: false,
    forceCloseConnections: 'idle',
    genReqId: ({ headers }: IncomingMessage) => {
      const given = headers['x-request-id'];
      return typeof given === 'string' && REQUEST_ID.test(given) ? given : `req_${randomUUID()}`;
    },
    clientErrorHandler: onClientError,
    frameworkErrors: (error, request, reply) => {
      onError(error, request, reply);
    },
    // Nothing is turned into what the schema wants, filled in, or taken away.
    ajv: {
      customOptions: {
        coerceTypes: false,
        useDefaults: false,
        removeAdditional: false,
        allowUnionTypes: true,
        verbose: true,
      },
    },
  });
}

function onError(error: unknown, request: FastifyRequest, reply: FastifyReply): void {
  if (error instanceof ClientGone) {
    // Nobody is there to be told.
    request.log.info('client gone before its answer');
    reply.hijack();
    reply.raw.destroy();
    return;
  }
  const { status, body, retryAfter } = toApiError(error);
  // What is an ApiError from the start was foreseen.
  if (status >= 500 && !(error instanceof ApiError)) request.log.error(error, 'request failed');
  if (retryAfter !== undefined) reply.header('retry-after', retryAfter);
  if (status === 401) reply.header('www-authenticate', 'Bearer');
  // What is left of the body would be taken for the next request.
  if (status === 413) reply.header('connection', 'close');
  void reply.code(status).send(body);
}

function addHooks(app: FastifyInstance, metrics: Metrics): void {
  app.addHook('onRequest', (request, reply, done) => {
    reply.header('x-request-id', request.id);
    reply.header('x-content-type-options', 'nosniff');
    done();
  });
  app.addHook('onResponse', (request, reply, done) => {
    const route = request.routeOptions.url ?? 'unknown';
    const { statusCode: status, elapsedTime: ms } = reply;
    metrics.answered(request.method, route, status, ms / 1000);
    const quiet = route.startsWith('/health') || route === '/metrics' || route === '/stats';
    const { method, url } = request;
    request.log[quiet ? 'debug' : 'info']({ method, url, status, ms: Math.round(ms) }, 'answered');
    done();
  });
}

function requireKey(context: ServerContext) {
  return (request: FastifyRequest, _reply: FastifyReply, done: (error?: Error) => void) => {
    if (context.mayUse(request)) return done();
    const given = request.headers.authorization !== undefined;
    const message = given
      ? 'Incorrect API key provided.'
      : "You did not provide an API key: send it in the header 'Authorization: Bearer KEY'.";
    done(new ApiError(401, message, { code: 'invalid_api_key' }));
  };
}

/**
 * The server of an engine, not yet listening.
 * @throws GqaError INVALID_ARGUMENT, OUT_OF_RANGE
 */
export async function createServer(
  engine: EngineLike,
  options: ServerOptions = {},
): Promise<GqaServer> {
  const resolved = resolveServerOptions(options);
  const metrics = new Metrics(engine);
  const context = new ServerContext(engine, resolved, metrics);
  const app = createApp(resolved) as unknown as FastifyInstance;
  addBodyParser(app);
  app.setErrorHandler(onError);
  // Schemas of answers are for the document: what is sent is what was meant.
  app.setSerializerCompiler(() => JSON.stringify);
  addHooks(app, metrics);
  addUnknownRoute(app);
  await addOpenApi(app);
  await app.register(async (open) => {
    addHealth(open, context);
    await addPage(open);
  });
  await app.register((keyed, _options, done) => {
    keyed.addHook('onRequest', requireKey(context));
    addModels(keyed, context);
    addCompletions(keyed, context);
    addChat(keyed, context);
    addEmbeddings(keyed);
    addTokens(keyed, context);
    addStats(keyed, context);
    done();
  });
  await app.ready();
  return new GqaServer(app, context);
}
