/** What routes answer, whole and streamed, in the forms of OpenAI's API. */
import { createServer, type GqaServer } from '../../lib/server';
import { FakeEngine } from '../support/fake-engine';
import { eventsOf, get, post } from '../support/http';

let engine: FakeEngine;
let server: GqaServer;
let url: string;

beforeEach(async () => {
  engine = new FakeEngine();
  server = await createServer(engine);
  url = await server.listen({ host: '127.0.0.1', port: 0 });
});
afterEach(() => server.close());

const MESSAGES = [
  { role: 'developer', content: 'Be brief.' },
  { role: 'user', content: [{ type: 'text', text: 'One day' }] },
];
const chat = (fields: object = {}) =>
  post(`${url}/v1/chat/completions`, {
    model: 'fake',
    messages: MESSAGES,
    temperature: 0,
    max_tokens: 4,
    ...fields,
  });
const complete = (fields: object = {}) =>
  post(`${url}/v1/completions`, { model: 'fake', prompt: 'One day', temperature: 0, ...fields });

test('a chat completion', async () => {
  const { status, headers, body } = await chat();
  expect(status).toBe(200);
  expect(headers.get('x-request-id')).toMatch(/^req_/);
  expect(body).toMatchObject({
    object: 'chat.completion',
    model: 'fake',
    choices: [{ index: 0, logprobs: null, finish_reason: 'length' }],
    usage: { completion_tokens: 4, prompt_tokens_details: { cached_tokens: 1 } },
  });
  const { message } = body.choices[0];
  expect(message.role).toBe('assistant');
  expect(message.content.length).toBeGreaterThan(0);
  // Through the template: OpenAI's newer role by its older name, the parts as one text.
  const prompt = engine.tokenizer.decode(engine.requests[0].prompt, { skipSpecialTokens: true });
  expect(prompt).toBe('<|system|>Be brief.<|user|>One day');
  expect(body.usage.total_tokens).toBe(engine.requests[0].prompt.length + 4);
});

test('streamed text is the whole text', async () => {
  const { content } = (await chat()).body.choices[0].message;
  const { body, headers } = await chat({ stream: true, stream_options: { include_usage: true } });
  expect(headers.get('content-type')).toMatch('text/event-stream');
  const events = eventsOf(body);
  expect(events.pop()).toBe('[DONE]');
  const { usage, choices } = events.pop();
  expect(choices).toEqual([]);
  expect(usage.completion_tokens).toBe(4);
  expect(new Set(events.map(({ id, object, usage }) => `${id} ${object} ${usage}`)).size).toBe(1);
  expect(events[0].choices[0].delta).toEqual({ role: 'assistant', content: '', refusal: null });
  expect(events[events.length - 1].choices[0]).toMatchObject({
    delta: {},
    finish_reason: 'length',
  });
  const text = events.map((event) => event.choices[0].delta.content ?? '').join('');
  expect(text).toBe(content);
});

test('several choices have seeds of their own and come in one stream', async () => {
  const fields = { n: 3, seed: 7, temperature: 1, prompt: ['One day', 'Tom'], max_tokens: 2 };
  const { choices, usage } = (await complete(fields)).body;
  expect(choices.map(({ index }: { index: number }) => index)).toEqual([0, 1, 2, 3, 4, 5]);
  expect(new Set(choices.map(({ text }: { text: string }) => text)).size).toBe(6);
  expect(engine.requests.map(({ sampling }) => sampling.seed)).toEqual([7, 8, 9, 10, 11, 12]);
  const lengths = [0, 3].map((choice) => engine.requests[choice].prompt.length);
  expect(usage).toMatchObject({
    prompt_tokens: lengths[0] + lengths[1],
    completion_tokens: 12,
    prompt_tokens_details: { cached_tokens: 2 },
  });
  const events = eventsOf((await complete({ ...fields, stream: true })).body).slice(0, -1);
  const texts = ['', '', '', '', '', ''];
  for (const { choices } of events) texts[choices[0].index] += choices[0].text;
  expect(texts).toEqual(choices.map(({ text }: { text: string }) => text));
});

test('log probabilities, in the form of either endpoint', async () => {
  const { content } = (await chat({ logprobs: true, top_logprobs: 2 })).body.choices[0].logprobs;
  expect(content).toHaveLength(4);
  const [{ token, bytes, logprob, top_logprobs }] = content;
  expect(Buffer.from(bytes).toString()).toBe(token);
  expect(logprob).toBe(0);
  expect(top_logprobs).toEqual(new Array(2).fill({ token, bytes, logprob }));
  const { logprobs, text } = (await complete({ logprobs: 1 })).body.choices[0];
  expect(logprobs.tokens.join('')).toBe(text);
  expect(logprobs.text_offset[1]).toBe(logprobs.tokens[0].length);
  expect(logprobs.token_logprobs).toHaveLength(16);
  const events = eventsOf((await complete({ logprobs: 1, stream: true })).body).slice(0, -2);
  const offsets = events.flatMap(({ choices }) => choices[0].logprobs.text_offset);
  expect(offsets).toEqual(logprobs.text_offset);
});

test('fields reach the engine as it names them', async () => {
  await complete({
    prompt: [5, 6, 7],
    max_tokens: 3,
    temperature: 0.5,
    top_p: 0.9,
    top_k: -1,
    min_p: 0.1,
    presence_penalty: 0.2,
    frequency_penalty: -0.3,
    repetition_penalty: 1.1,
    logit_bias: { 5: -100, 2047: 3 },
    seed: 3,
    stop: 'end',
    user: 'anna',
    priority: 2,
    ignore_eos: true,
  });
  const { signal, ...request } = engine.requests[0];
  expect(signal).toBeInstanceOf(AbortSignal);
  expect(request).toEqual({
    prompt: [5, 6, 7],
    maxTokens: 3,
    sampling: {
      temperature: 0.5,
      topK: 0,
      topP: 0.9,
      minP: 0.1,
      presencePenalty: 0.2,
      frequencyPenalty: -0.3,
      repetitionPenalty: 1.1,
      logitBias: { 5: -100, 2047: 3 },
      seed: 3,
    },
    stop: ['end'],
    logprobs: -1,
    priority: 2,
    user: 'anna',
    ignoreEos: true,
  });
});

test('defaults are those of OpenAI, and null is as good as nothing', async () => {
  const fields = ['max_tokens', 'temperature', 'stop', 'n', 'logit_bias', 'stream', 'user', 'seed'];
  await complete(Object.fromEntries(fields.map((name) => [name, null])));
  await chat({ max_tokens: undefined, temperature: undefined });
  expect(engine.requests[0]).toMatchObject({ maxTokens: 16, stop: [], logprobs: -1 });
  expect(engine.requests[0].sampling).toMatchObject({ temperature: 1, topP: 1, topK: 0 });
  const { maxTokens, prompt } = engine.requests[1];
  expect(maxTokens + prompt.length).toBe(512);
});

test('fields of OpenAI that change nothing here are accepted', async () => {
  const { status } = await chat({
    max_tokens: undefined,
    max_completion_tokens: 1,
    store: true,
    metadata: { a: 'b' },
    service_tier: 'auto',
    parallel_tool_calls: false,
    reasoning_effort: 'low',
    tools: [],
    tool_choice: 'none',
    response_format: { type: 'text' },
    modalities: ['text'],
    something_new: { of: 'next year' },
  });
  expect(status).toBe(200);
  expect(engine.requests[0].maxTokens).toBe(1);
});

test('models', async () => {
  const { data } = (await get(`${url}/v1/models`)).body;
  expect(data).toEqual([
    expect.objectContaining({ id: 'fake', object: 'model', max_model_len: 512 }),
  ]);
  expect((await get(`${url}/v1/models/fake`)).body).toEqual(data[0]);
});

test('text to ids and back', async () => {
  const { tokens, count } = (await post(`${url}/tokenize`, { prompt: 'One day' })).body;
  expect(tokens).toEqual(engine.tokenizer.encode('One day'));
  expect(count).toBe(tokens.length);
  const bare = { prompt: 'One day', add_special_tokens: false };
  expect((await post(`${url}/tokenize`, bare)).body.tokens).toEqual(tokens.slice(1));
  const ofChat = (await post(`${url}/tokenize`, { messages: MESSAGES })).body;
  expect(ofChat.count).toBeGreaterThan(count);
  // The template, which has none, decides over BOS; a client may ask for it.
  const begun = await post(`${url}/tokenize`, { messages: MESSAGES, add_special_tokens: true });
  expect(begun.body.tokens).toEqual([tokens[0], ...ofChat.tokens]);
  await chat();
  expect(engine.requests.at(-1)!.prompt).toEqual(ofChat.tokens);
  const { body } = await post(`${url}/detokenize`, { tokens: tokens.slice(1) });
  expect(body).toEqual({ prompt: 'One day' });
});

test('metrics count requests and answers', async () => {
  await complete({ n: 2 });
  const { body, headers } = await get(`${url}/metrics`);
  expect(headers.get('content-type')).toMatch('text/plain');
  expect(body).toMatch(
    'gqa_http_requests_total{method="POST",route="/v1/completions",status="200"} 1',
  );
  expect(body).toMatch('gqa_generations_total{outcome="length"} 2');
  expect(body).toMatch(/^gqa_first_token_seconds_count 2$/m);
  expect(body).toMatch(/^gqa_cache_capacity_tokens 512$/m);
  expect(body).toMatch(/^nodejs_eventloop_lag_p99_seconds /m);
});

test('figures for the page', async () => {
  const { body } = await get(`${url}/stats`);
  expect(body.model).toMatchObject({ id: 'fake', contextLength: 512, chat: true });
  expect(body.engine.cache.capacityTokens).toBe(512);
});

test('the OpenAPI document names every route, with its answers', async () => {
  const { body } = await get(`${url}/openapi.json`);
  expect(Object.keys(body.paths).sort()).toEqual([
    '/detokenize',
    '/health',
    '/health/ready',
    '/metrics',
    '/stats',
    '/tokenize',
    '/v1/chat/completions',
    '/v1/completions',
    '/v1/embeddings',
    '/v1/models',
    '/v1/models/{model}',
  ]);
  const { post: operation } = body.paths['/v1/chat/completions'];
  expect(Object.keys(operation.responses)).toContain('429');
  expect(Object.keys(operation.responses['200'].content)).toContain('text/event-stream');
});

test('a client may name its request, in harmless characters', async () => {
  const idOf = async (id: string) =>
    (await get(`${url}/health`, { 'x-request-id': id })).headers.get('x-request-id');
  expect(await idOf('trace-1:2')).toBe('trace-1:2');
  expect(await idOf('{"level":60}')).toMatch(/^req_/);
});
