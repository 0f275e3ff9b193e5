/**
 * Twenty calls of OpenAI's own Node package against `gqa serve`, with nothing changed but the base URL and the key.
 * scripts/openai-check.py makes the same calls with the Python package.
 */
import OpenAI from 'openai';
import { ChatModel, ServeProcess } from '../support/serve-process';

const KEY = 'sk-test';
let model: ChatModel;
let server: ServeProcess;
let client: OpenAI;

beforeAll(async () => {
  model = new ChatModel();
  server = await ServeProcess.start(['--model', model.path, '--log-level', 'warn'], {
    GQA_API_KEYS: KEY,
  });
  client = new OpenAI({ baseURL: `${server.url}/v1`, apiKey: KEY, maxRetries: 0 });
});
afterAll(async () => {
  const code = await server.end();
  model.remove();
  expect(code).toBe(0);
});

const messages = [{ role: 'user' as const, content: 'One day, Tom found a' }];
const asked = () => ({ model: model.id, messages, temperature: 0, max_tokens: 24 });
const prompted = () => ({ model: model.id, prompt: 'Once upon a', temperature: 0 });

const endless = () => ({ ...asked(), max_tokens: 400, ignore_eos: true });

/** The text of asked(), which several calls must come back to. */
async function answer(): Promise<string> {
  const { choices } = await client.chat.completions.create(asked());
  return choices[0].message.content!;
}

test('1 models.list', async () => {
  const { data } = await client.models.list();
  expect(data.map(({ id }) => id)).toEqual([model.id]);
});

test('2 models.retrieve', async () => {
  expect((await client.models.retrieve(model.id)).object).toBe('model');
});

test('3 a chat completion', async () => {
  const completion = await client.chat.completions.create(asked());
  expect(completion.choices[0].finish_reason).toBe('length');
  expect(completion.choices[0].message.content!.length).toBeGreaterThan(20);
  expect(completion.usage!.completion_tokens).toBe(24);
  expect(completion._request_id).toMatch(/^req_/);
});

test('4 the same, streamed', async () => {
  const stream = await client.chat.completions.create({
    ...asked(),
    stream: true,
    stream_options: { include_usage: true },
  });
  let text = '';
  let usage: OpenAI.CompletionUsage | null | undefined;
  for await (const chunk of stream) {
    text += chunk.choices[0]?.delta.content ?? '';
    usage = chunk.usage;
  }
  expect(text).toBe(await answer());
  expect(usage!.completion_tokens).toBe(24);
});

test('5 the package puts a stream together itself', async () => {
  const runner = client.chat.completions.stream(asked());
  expect(await runner.finalContent()).toBe(await answer());
});

test('6 several choices', async () => {
  const fields = { ...asked(), temperature: 1, n: 3, seed: 1 };
  const { choices, usage } = await client.chat.completions.create(fields);
  expect(new Set(choices.map(({ message }) => message.content)).size).toBe(3);
  expect(usage!.completion_tokens).toBeLessThanOrEqual(72);
});

test('7 a stop string', async () => {
  const whole = await answer();
  const stop = whole.slice(10, 15);
  const { choices } = await client.chat.completions.create({ ...asked(), stop });
  expect(choices[0].message.content).toBe(whole.slice(0, whole.indexOf(stop)));
  expect(choices[0].finish_reason).toBe('stop');
});

test('8 the first of several stop strings, streamed', async () => {
  const whole = await answer();
  const stop = ['no such text', whole.slice(20, 26), whole.slice(12, 18)];
  const stream = await client.chat.completions.create({ ...asked(), stop, stream: true });
  let text = '';
  for await (const chunk of stream) text += chunk.choices[0].delta.content ?? '';
  const ends = stop.map((one) => whole.indexOf(one)).filter((at) => at >= 0);
  expect(text).toBe(whole.slice(0, Math.min(...ends)));
});

test('9 a seed gives the same text again, another gives another', async () => {
  const withSeed = async (seed: number) => {
    const fields = { ...asked(), temperature: 1, seed };
    return (await client.chat.completions.create(fields)).choices[0].message.content;
  };
  const [first, again, other] = await Promise.all([withSeed(5), withSeed(5), withSeed(6)]);
  expect(again).toBe(first);
  expect(other).not.toBe(first);
});

test('10 log probabilities', async () => {
  const fields = { ...asked(), logprobs: true, top_logprobs: 3 };
  const { choices } = await client.chat.completions.create(fields);
  const content = choices[0].logprobs!.content!;
  expect(content).toHaveLength(24);
  expect(content.map(({ token }) => token).join('')).toBe(choices[0].message.content);
  for (const { token, logprob, top_logprobs } of content) {
    expect(logprob).toBeLessThanOrEqual(0);
    expect(top_logprobs[0].token).toBe(token);
    expect(top_logprobs.map((top) => top.logprob)).toEqual(
      top_logprobs.map((top) => top.logprob).sort((a, b) => b - a),
    );
  }
});

test('11 log probabilities, streamed', async () => {
  const stream = await client.chat.completions.create({ ...asked(), logprobs: true, stream: true });
  let text = '';
  for await (const { choices } of stream) {
    for (const { token } of choices[0].logprobs?.content ?? []) text += token;
  }
  expect(text).toBe(await answer());
});

test('12 max_completion_tokens', async () => {
  const fields = { ...asked(), max_tokens: undefined, max_completion_tokens: 5 };
  const { usage } = await client.chat.completions.create(fields);
  expect(usage!.completion_tokens).toBe(5);
});

test('13 a bias forbids a token', async () => {
  const { choices } = await client.completions.create({ ...prompted(), max_tokens: 1 });
  const tokenized = await fetch(`${server.url}/tokenize`, {
    method: 'POST',
    headers: { 'content-type': 'application/json', authorization: `Bearer ${KEY}` },
    body: JSON.stringify({ prompt: choices[0].text, add_special_tokens: false }),
  });
  const { tokens } = JSON.parse(await tokenized.text());
  const fields = { ...prompted(), max_tokens: 1, logit_bias: { [tokens[0]]: -100 } };
  const other = await client.completions.create(fields);
  expect(other.choices[0].text).not.toBe(choices[0].text);
});

test('14 a completion', async () => {
  const { choices, usage } = await client.completions.create({ ...prompted(), max_tokens: 8 });
  expect(choices[0].text).toMatch(/^ time/);
  expect(usage!.total_tokens).toBe(usage!.prompt_tokens + 8);
});

test('15 completions of several prompts, streamed', async () => {
  const prompt = ['Once upon a', 'One day'];
  const stream = await client.completions.create({ ...prompted(), prompt, stream: true });
  const texts = ['', ''];
  for await (const { choices } of stream) texts[choices[0].index] += choices[0].text;
  const whole = await client.completions.create({ ...prompted(), prompt });
  expect(texts).toEqual(whole.choices.map(({ text }) => text));
});

test('16 log probabilities of a completion', async () => {
  const { choices } = await client.completions.create({ ...prompted(), logprobs: 2 });
  const { tokens, token_logprobs, text_offset } = choices[0].logprobs!;
  expect(tokens!.join('')).toBe(choices[0].text);
  expect(token_logprobs).toHaveLength(tokens!.length);
  expect(text_offset![1]).toBe(tokens![0].length);
});

test('17 a model that is not there', async () => {
  const call = client.chat.completions.create({ ...asked(), model: 'gpt-9' });
  const error = (await call.catch((e: unknown) => e)) as InstanceType<typeof OpenAI.NotFoundError>;
  expect(error).toBeInstanceOf(OpenAI.NotFoundError);
  expect(error.code).toBe('model_not_found');
  expect(error.param).toBe('model');
});

test('18 what is refused: a wrong type, a prompt too long, a wrong key, embeddings', async () => {
  const wrong = client.chat.completions.create({ ...asked(), temperature: 'hot' as never });
  await expect(wrong).rejects.toThrow(OpenAI.BadRequestError);
  const prompt = 'word '.repeat(600);
  const long = client.completions.create({ model: model.id, prompt });
  await expect(long).rejects.toMatchObject({ status: 400, code: 'context_length_exceeded' });
  const stranger = client.withOptions({ apiKey: 'sk-other' });
  await expect(stranger.models.list()).rejects.toThrow(OpenAI.AuthenticationError);
  const embeddings = client.embeddings.create({ model: model.id, input: 'Hi' });
  await expect(embeddings).rejects.toMatchObject({ status: 501, code: 'not_implemented' });
});

test('19 a stream that is left', async () => {
  const stream = await client.chat.completions.create({ ...endless(), stream: true });
  const chunks = stream[Symbol.asyncIterator]();
  expect((await chunks.next()).done).toBe(false);
  await chunks.return!();
  while ((await running()) > 0);
});

test('20 a request that is aborted', async () => {
  const controller = new AbortController();
  const call = client.chat.completions.create(endless(), { signal: controller.signal });
  while ((await running()) === 0);
  controller.abort();
  await expect(call).rejects.toThrow(OpenAI.APIUserAbortError);
  while ((await running()) > 0);
  expect((await answer()).length).toBeGreaterThan(20);
});

async function running(): Promise<number> {
  const response = await fetch(`${server.url}/stats`, {
    headers: { authorization: `Bearer ${KEY}` },
  });
  return JSON.parse(await response.text()).engine.running;
}
