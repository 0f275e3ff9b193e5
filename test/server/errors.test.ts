/** What is refused, and how it is said: OpenAI's form, with the status, the field and the code. */
import { createServer, type GqaServer } from '../../lib/server';
import { FakeEngine } from '../support/fake-engine';
import { get, post, readAnswer } from '../support/http';

let engine: FakeEngine;
let server: GqaServer;
let url: string;

beforeAll(async () => {
  engine = new FakeEngine();
  server = await createServer(engine, { bodyLimit: 20_000 });
  url = await server.listen({ host: '127.0.0.1', port: 0 });
});
afterAll(() => server.close());

const CHAT = '/v1/chat/completions';
const TEXT = '/v1/completions';
const messages = [{ role: 'user', content: 'Hi' }];
const chat = (fields: object) => ({ model: 'fake', messages, ...fields });
const text = (fields: object) => ({ model: 'fake', prompt: 'Hi', ...fields });
const said = (content: unknown, role: unknown = 'user') => chat({ messages: [{ role, content }] });

type Row = [path: string, body: unknown, status: number, param: string | null, code: string];
const ROWS: Row[] = [
  [CHAT, '', 400, null, 'invalid_json'],
  [CHAT, '{"model": "fake", ', 400, null, 'invalid_json'],
  [CHAT, '['.repeat(10_000), 400, null, 'invalid_json'],
  [CHAT, 'null', 400, null, 'invalid_type'],
  [CHAT, '[]', 400, null, 'invalid_type'],
  [CHAT, Buffer.from('{"model": "\xff"}', 'latin1'), 400, null, 'invalid_utf8'],
  [CHAT, Buffer.from('{"model": "\xed\xa0\x80"}', 'latin1'), 400, null, 'invalid_utf8'],
  [CHAT, { messages }, 400, 'model', 'missing_required_parameter'],
  [CHAT, { model: 'fake' }, 400, 'messages', 'missing_required_parameter'],
  [CHAT, chat({ model: 'gpt-9' }), 404, 'model', 'model_not_found'],
  [CHAT, chat({ model: 9 }), 400, 'model', 'invalid_type'],
  [CHAT, chat({ messages: [] }), 400, 'messages', 'invalid_value'],
  [CHAT, chat({ messages: 'Hi' }), 400, 'messages', 'invalid_type'],
  [CHAT, chat({ messages: ['Hi'] }), 400, 'messages[0]', 'invalid_type'],
  [
    CHAT,
    chat({ messages: [{ content: '' }] }),
    400,
    'messages[0].role',
    'missing_required_parameter',
  ],
  [CHAT, said('Hi', 'wizard'), 400, 'messages[0].role', 'invalid_value'],
  [CHAT, said(7), 400, 'messages[0].content', 'invalid_type'],
  [CHAT, said(null), 400, 'messages[0].content', 'invalid_value'],
  [CHAT, said([{ type: 'image_url', image_url: {} }]), 400, 'messages[0].content', 'invalid_type'],
  [CHAT, chat({ temperature: 'hot' }), 400, 'temperature', 'invalid_type'],
  [CHAT, chat({ temperature: 2.1 }), 400, 'temperature', 'invalid_value'],
  [CHAT, chat({ top_p: -0.1 }), 400, 'top_p', 'invalid_value'],
  [CHAT, chat({ max_tokens: 0 }), 400, 'max_tokens', 'invalid_value'],
  [CHAT, chat({ max_tokens: 1.5 }), 400, 'max_tokens', 'invalid_type'],
  [CHAT, chat({ max_tokens: 513 }), 400, 'max_tokens', 'context_length_exceeded'],
  [CHAT, chat({ max_completion_tokens: 9e15 }), 400, 'max_tokens', 'context_length_exceeded'],
  [CHAT, chat({ max_tokens: 1e300 }), 400, 'max_tokens', 'invalid_value'],
  [CHAT, said('word '.repeat(600)), 400, null, 'context_length_exceeded'],
  [CHAT, said('word '.repeat(3000)), 400, null, 'context_length_exceeded'],
  [CHAT, said('word '.repeat(6000)), 413, null, 'body_too_large'],
  [CHAT, chat({ n: 0 }), 400, 'n', 'invalid_value'],
  [CHAT, chat({ n: 1e9 }), 400, 'n', 'invalid_value'],
  [CHAT, chat({ n: [2] }), 400, 'n', 'invalid_type'],
  [CHAT, chat({ stop: '' }), 400, 'stop', 'invalid_type'],
  [CHAT, chat({ stop: [1] }), 400, 'stop', 'invalid_type'],
  [CHAT, chat({ stop: new Array(17).fill('x') }), 400, 'stop', 'invalid_type'],
  [CHAT, chat({ seed: 'lucky' }), 400, 'seed', 'invalid_type'],
  [CHAT, chat({ seed: 1e19 }), 400, 'seed', 'invalid_value'],
  [CHAT, chat({ stream: 'yes' }), 400, 'stream', 'invalid_type'],
  [CHAT, chat({ stream_options: true }), 400, 'stream_options', 'invalid_type'],
  [CHAT, chat({ logit_bias: { first: 1 } }), 400, 'logit_bias', 'invalid_value'],
  [CHAT, chat({ logit_bias: { 5: 101 } }), 400, 'logit_bias[5]', 'invalid_value'],
  [CHAT, chat({ logit_bias: { 2048: 1 } }), 400, 'logit_bias', 'invalid_value'],
  [CHAT, chat({ logprobs: 3 }), 400, 'logprobs', 'invalid_type'],
  [CHAT, chat({ top_logprobs: 3 }), 400, 'top_logprobs', 'invalid_value'],
  [CHAT, chat({ logprobs: true, top_logprobs: 21 }), 400, 'top_logprobs', 'invalid_value'],
  [CHAT, chat({ tools: [{ type: 'function' }] }), 400, 'tools', 'unsupported_parameter'],
  [
    CHAT,
    chat({ response_format: { type: 'json_object' } }),
    400,
    'response_format',
    'unsupported_parameter',
  ],
  [CHAT, chat({ audio: { voice: 'alloy' } }), 400, 'audio', 'unsupported_parameter'],
  [TEXT, text({ echo: true }), 400, 'echo', 'unsupported_parameter'],
  [TEXT, text({ suffix: 'end' }), 400, 'suffix', 'unsupported_parameter'],
  [TEXT, text({ best_of: 4 }), 400, 'best_of', 'unsupported_parameter'],
  [TEXT, { model: 'fake' }, 400, 'prompt', 'missing_required_parameter'],
  [TEXT, text({ prompt: null }), 400, 'prompt', 'invalid_type'],
  [TEXT, text({ prompt: [] }), 400, 'prompt', 'invalid_type'],
  [TEXT, text({ prompt: [[]] }), 400, 'prompt', 'invalid_type'],
  [TEXT, text({ prompt: [-1] }), 400, 'prompt', 'invalid_type'],
  [TEXT, text({ prompt: [1, 'x'] }), 400, 'prompt', 'invalid_type'],
  [TEXT, text({ prompt: [2048] }), 400, 'prompt', 'invalid_value'],
  [TEXT, text({ prompt: new Array(512).fill(5) }), 400, null, 'context_length_exceeded'],
  [TEXT, text({ prompt: ['a', 'b', 'c'], n: 64 }), 400, 'n', 'invalid_value'],
  [TEXT, text({ logprobs: true }), 400, 'logprobs', 'invalid_type'],
  ['/v1/embeddings', { model: 'fake', input: 'Hi' }, 501, null, 'not_implemented'],
  ['/tokenize', {}, 400, 'prompt', 'missing_required_parameter'],
  ['/tokenize', { prompt: 'a', messages }, 400, 'prompt', 'missing_required_parameter'],
  ['/tokenize', { prompt: 'a', model: 'gpt-9' }, 404, 'model', 'model_not_found'],
  ['/detokenize', { tokens: [1.5] }, 400, 'tokens[0]', 'invalid_type'],
  ['/detokenize', { tokens: [-1] }, 400, 'tokens[0]', 'invalid_value'],
  ['/v1/nothing', {}, 404, null, 'unknown_url'],
  ['/v1/models', {}, 405, null, 'method_not_allowed'],
  ['/v1/models/fake', {}, 405, null, 'method_not_allowed'],
  ['/health', {}, 405, null, 'method_not_allowed'],
];

function expectError(answer: Awaited<ReturnType<typeof post>>) {
  expect(answer.headers.get('content-type')).toMatch('application/json');
  expect(answer.body).toEqual({
    error: {
      message: expect.any(String) as string,
      type: answer.status >= 500 ? 'server_error' : 'invalid_request_error',
      param: answer.body.error.param,
      code: answer.body.error.code,
    },
  });
  expect(answer.body.error.message.length).toBeGreaterThan(10);
  expect(answer.body.error.message.length).toBeLessThan(400);
}

test.each(ROWS)('%s %j', async (path, body, status, param, code) => {
  const before = engine.requests.length;
  const answer = await post(`${url}${path}`, body);
  expectError(answer);
  expect({ status: answer.status, ...answer.body.error }).toMatchObject({ status, param, code });
  expect(engine.requests).toHaveLength(before);
});

test('a wrong type is named, with what was expected', async () => {
  const { body } = await post(`${url}${CHAT}`, chat({ temperature: 'hot' }));
  expect(body.error.message).toBe(
    "Invalid type for 'temperature': expected number or null, but got a string instead.",
  );
});

test.each(['text/plain', 'application/x-www-form-urlencoded', 'application/xml', 'nonsense'])(
  'a body of type %s',
  async (type) => {
    const answer = await post(`${url}${CHAT}`, chat({}), { 'content-type': type });
    expectError(answer);
    expect(answer.status).toBe(415);
  },
);

test('no body at all', async () => {
  const answer = await readAnswer(await fetch(`${url}${CHAT}`, { method: 'POST' }));
  expectError(answer);
  expect(answer.status).toBe(400);
});

test.each(['DELETE', 'PUT', 'PATCH', 'OPTIONS'])('method %s', async (method) => {
  const answer = await readAnswer(await fetch(`${url}${CHAT}`, { method }));
  expectError(answer);
  expect(answer.status).toBe(405);
  expect(answer.headers.get('allow')).toBe('POST');
});

test.each(['/%', '/v1/models/%E0%A4%A', '/v1/models/gpt%2F9', '/../etc/passwd', '/page/none.js'])(
  'the URL %s',
  async (path) => {
    const answer = await get(`${url}${path}`);
    expectError(answer);
    expect([400, 404]).toContain(answer.status);
  },
);

test('a model without a chat template says so, one of token ids goes on', async () => {
  const plain = await createServer(new FakeEngine({ chat: false }));
  const at = await plain.listen({ host: '127.0.0.1', port: 0 });
  const { status, body } = await post(`${at}${CHAT}`, chat({}));
  expect(status).toBe(400);
  expect(body.error.code).toBe('no_chat_template');
  expect((await post(`${at}${TEXT}`, text({}))).status).toBe(200);
  await plain.close();
});

test('half a surrogate pair is no character, and harms nothing', async () => {
  const lone = '{"model": "fake", "prompt": "a\\ud800b", "max_tokens": 1}';
  const { status } = await post(`${url}${TEXT}`, lone);
  expect(status).toBe(200);
  const { prompt } = engine.requests[engine.requests.length - 1];
  expect(prompt).toEqual(engine.tokenizer.encode('a\ufffdb'));
});
