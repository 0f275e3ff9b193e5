/** Clients as they are: without keys, too many, gone, slow, half-sent, malformed; and a server that ends. */
import { once } from 'node:events';
import { connect } from 'node:net';
import { GqaError } from '../../lib/core/errors';
import { createServer, type GqaServer, type ServerOptions } from '../../lib/server';
import { FakeEngine } from '../support/fake-engine';
import { eventsOf, get, post, raw, until } from '../support/http';

let engine: FakeEngine;
let server: GqaServer;
let url: string;

async function start(options: ServerOptions = {}): Promise<void> {
  engine = new FakeEngine();
  server = await createServer(engine, options);
  url = await server.listen({ host: '127.0.0.1', port: 0 });
}
afterEach(() => server.close());

const REQUEST = { model: 'fake', prompt: 'One day', max_tokens: 4 };
const complete = (fields: object = {}, headers = {}) =>
  post(`${url}/v1/completions`, { ...REQUEST, ...fields }, headers);

/** Holds every run before its token number `at` until the returned function is called. */
function closeGate(at = 0): () => void {
  let open = () => undefined as void;
  engine.gateAt = at;
  engine.gate = new Promise((resolve) => (open = resolve));
  return open;
}

/** The bytes of a request, for a socket. */
function requestBytes(body: object | string, headers = '', path = '/v1/completions'): string {
  const text = typeof body === 'string' ? body : JSON.stringify(body);
  return `POST ${path} HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: ${Buffer.byteLength(text)}\r\n${headers}\r\n${text}`;
}

describe('API keys', () => {
  test('one of them opens what costs, and nothing else needs any', async () => {
    await start({ apiKeys: ['first', 'second'] });
    const statusWith = async (authorization: string) =>
      (await complete({}, { authorization })).status;
    expect(await statusWith('Bearer first')).toBe(200);
    expect(await statusWith('bearer  second')).toBe(200);
    for (const wrong of ['Bearer third', 'Bearer firs', 'Bearer first second', 'first', '']) {
      expect(await statusWith(wrong)).toBe(401);
    }
    const { body, headers } = await complete();
    expect(body.error).toMatchObject({ type: 'invalid_request_error', code: 'invalid_api_key' });
    expect(headers.get('www-authenticate')).toBe('Bearer');
    for (const path of ['/v1/models', '/v1/models/fake', '/stats']) {
      expect((await get(`${url}${path}`)).status).toBe(401);
    }
    for (const path of ['/tokenize', '/detokenize', '/v1/embeddings', '/v1/chat/completions']) {
      expect((await post(`${url}${path}`, {})).status).toBe(401);
    }
    for (const path of ['/', '/health', '/health/ready', '/metrics', '/openapi.json']) {
      expect((await get(`${url}${path}`)).status).toBe(200);
    }
  });
});

describe('a full queue', () => {
  test('is 429 with the time to try again; the request that has its place goes on', async () => {
    await start();
    engine.capacity = 1;
    const open = closeGate();
    const first = complete();
    await until(() => engine.running === 1);
    const { status, headers, body } = await complete();
    expect(status).toBe(429);
    expect(Number(headers.get('retry-after'))).toBeGreaterThanOrEqual(1);
    expect(body.error).toMatchObject({ type: 'requests', code: 'rate_limit_exceeded' });
    open();
    expect((await first).status).toBe(200);
    expect((await complete()).status).toBe(200);
  });

  test('takes all choices of a request or none', async () => {
    await start();
    engine.capacity = 3;
    expect((await complete({ n: 4 })).status).toBe(429);
    const { body } = await get(`${url}/metrics`);
    expect(body).toMatch('gqa_generations_total{outcome="rejected"} 1');
    // Runs that were taken have their signal aborted, whether anybody reads them or not.
    expect(engine.requests.map(({ signal }) => signal!.aborted)).toEqual([true, true, true]);
  });
});

describe('an engine that fails', () => {
  test('before the answer: an error with its status', async () => {
    await start();
    engine.failure = { at: 0, error: new GqaError('NON_FINITE', 'No logit is finite') };
    for (const stream of [false, true]) {
      const { status, body } = await complete({ stream });
      expect(status).toBe(500);
      expect(body.error).toMatchObject({ type: 'server_error', code: 'internal_error' });
      expect(body.error.message).not.toMatch('logit');
    }
  });

  test('in the middle of a stream: an error is its last event', async () => {
    await start();
    engine.failure = { at: 2, error: new Error('secret path') };
    const { status, body } = await complete({ stream: true });
    expect(status).toBe(200);
    const events = eventsOf(body);
    expect(events.slice(0, 2).every((event) => event.choices[0].text !== '')).toBe(true);
    expect(events).toHaveLength(3);
    expect(events[2].error).toMatchObject({ type: 'server_error', code: 'internal_error' });
    expect(body).not.toMatch('secret');
  });

  test('of one choice: the others are ended', async () => {
    await start();
    engine.failure = { at: 1, error: new Error('broken') };
    expect((await complete({ n: 3 })).status).toBe(500);
    expect((await complete({ n: 3, stream: true })).status).toBe(200);
    await until(() => engine.running === 0);
  });

  test('for good: not live, and requests are told so', async () => {
    await start();
    engine.live = false;
    expect((await get(`${url}/health`)).status).toBe(503);
    expect((await get(`${url}/health/ready`)).status).toBe(503);
    const { status, body } = await complete();
    expect(status).toBe(503);
    expect(body.error.code).toBe('engine_dead');
  });

  test('for good in the middle of an answer: 503', async () => {
    await start();
    const open = closeGate();
    const running = complete();
    await until(() => engine.running === 1);
    engine.live = false;
    engine.failure = { at: 0, error: new Error('worker gone') };
    open();
    expect((await running).body.error.code).toBe('engine_dead');
  });
});

describe('clients that vanish', () => {
  test.each([true, false])('end their runs (stream: %s)', async (stream) => {
    await start();
    const open = closeGate();
    const controller = new AbortController();
    const body = JSON.stringify({ ...REQUEST, n: 2, stream });
    const gone = fetch(`${url}/v1/completions`, {
      method: 'POST',
      headers: { 'content-type': 'application/json' },
      body,
      signal: controller.signal,
    });
    await until(() => engine.running === 2);
    controller.abort();
    await expect(gone).rejects.toThrow();
    await until(() => engine.running === 0);
    expect(engine.aborted).toBe(2);
    open();
    expect((await complete()).status).toBe(200);
  });

  test('in mid-stream, too', async () => {
    await start();
    closeGate(3);
    const socket = connect(Number(new URL(url).port), '127.0.0.1');
    socket.write(requestBytes({ ...REQUEST, stream: true }));
    await once(socket, 'data');
    socket.resetAndDestroy();
    await until(() => engine.running === 0);
    expect(engine.aborted).toBe(1);
  });
});

describe('slow readers', () => {
  /** Asks for far more than sockets hold and does not read. */
  async function stalled(): Promise<ReturnType<typeof connect>> {
    const socket = connect(Number(new URL(url).port), '127.0.0.1');
    socket.pause();
    const messages = [{ role: 'user', content: 'x' }];
    const fields = { model: 'fake', messages, max_tokens: 400, n: 32, stream: true };
    const body = { ...fields, logprobs: true, top_logprobs: 20 };
    socket.write(requestBytes(body, '', '/v1/chat/completions'));
    await until(() => engine.running > 0);
    return socket;
  }

  test('pause their own answers, and nobody else', async () => {
    await start();
    const socket = await stalled();
    for (let i = 0; i < 5; i++) expect((await complete()).status).toBe(200);
    expect(engine.running).toBeGreaterThan(0);
    socket.destroy();
    await until(() => engine.running === 0);
  });

  test('are given up when they take nothing for too long', async () => {
    await start({ stallTimeoutMs: 50 });
    const socket = await stalled();
    await until(() => engine.running === 0);
    const { body } = await get(`${url}/metrics`);
    expect(body).toMatch('gqa_generations_total{outcome="cancelled"} 1');
    socket.destroy();
  });
});

describe('bytes that are no request', () => {
  const MALFORMED: [string, string | Buffer][] = [
    ['garbage', '\x16\x03\x01 not HTTP\r\n\r\n'],
    ['binary', Buffer.from(Array.from({ length: 600 }, (_, i) => (i * 37) % 256))],
    ['no method', ' / HTTP/1.1\r\n\r\n'],
    ['a header without a colon', 'GET / HTTP/1.1\r\nhost\r\n\r\n'],
    ['a NUL in a header', 'GET / HTTP/1.1\r\nhost: a\0b\r\n\r\n'],
    [
      'two lengths',
      'POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\na',
    ],
    [
      'a length and chunks',
      'POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 1\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n',
    ],
    ['a negative length', 'POST / HTTP/1.1\r\nhost: x\r\ncontent-length: -1\r\n\r\n'],
    [
      'a broken chunk',
      'POST /v1/completions HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n',
    ],
    ['too many headers', `GET / HTTP/1.1\r\nhost: x\r\n${'a: b\r\n'.repeat(20_000)}\r\n`],
  ];

  test.each(MALFORMED)('%s', async (_, bytes) => {
    await start();
    const text = await raw(url, bytes);
    expect(text).toMatch(/^HTTP\/1.1 4\d\d /);
    expect(JSON.parse(text.split('\r\n\r\n')[1]).error.type).toBe('invalid_request_error');
    expect((await complete()).status).toBe(200);
  });

  test('a body shorter than its length is waited for, but not for ever', async () => {
    await start({ requestTimeoutMs: 200 });
    const half = requestBytes(REQUEST).slice(0, -10);
    expect(await raw(url, half)).toMatch(/^HTTP\/1.1 408 .*"request_timeout"/s);
    expect((await complete()).status).toBe(200);
  });

  test('a body whose client has ended in the middle', async () => {
    await start();
    const half = requestBytes(REQUEST).slice(0, -10);
    expect(await raw(url, half, { end: true })).toMatch(/^(HTTP\/1.1 400 .*)?$/s);
    expect(engine.requests).toHaveLength(0);
    expect((await complete()).status).toBe(200);
  });

  test('rubbish behind a request does not spoil its answer', async () => {
    await start();
    const text = await raw(url, `${requestBytes(REQUEST, 'connection: close\r\n')}\0\0rubbish`);
    expect(text).toMatch(/^HTTP\/1.1 [24]00 /);
    expect((await complete()).status).toBe(200);
  });
});

describe('a drain', () => {
  test('finishes what is under way, takes nothing new, says not ready', async () => {
    await start();
    const open = closeGate();
    const running = [complete(), complete({ stream: true })];
    await until(() => engine.running === 2);
    const drained = server.drain();
    const ready = await get(`${url}/health/ready`);
    expect(ready.status).toBe(503);
    expect((await get(`${url}/health`)).status).toBe(200);
    const refused = await complete();
    expect(refused.status).toBe(503);
    expect(refused.headers.get('retry-after')).toBe('1');
    expect(refused.body.error.code).toBe('shutting_down');
    open();
    const [whole, streamed] = await Promise.all(running);
    expect(whole.body.choices[0].finish_reason).toBe('length');
    expect(eventsOf(streamed.body).pop()).toBe('[DONE]');
    await drained;
    await expect(fetch(url)).rejects.toThrow();
  });

  test('ends what takes too long', async () => {
    await start();
    closeGate();
    const running = complete();
    await until(() => engine.running === 1);
    await server.drain(20);
    expect((await running).body.error.code).toBe('shutting_down');
    expect(engine.running).toBe(0);
  });
});
