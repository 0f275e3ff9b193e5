/** `gqa serve` as a process: its flags, its signals, and that other requests change nothing in an answer. */
import { loadModel, type Model } from '../../lib';
import { embeddedModel } from '../support/package';
import { get, post } from '../support/http';
import { ServeProcess } from '../support/serve-process';
import { gqa } from '../unit/cli/cli-process';

let server: ServeProcess;
let model: Model;

beforeAll(async () => {
  const flags = ['--max-sequences', '4', '--max-queue', '4', '--context-length', '200'];
  const keys = ['--api-key', 'one', '--api-key', 'two'];
  server = await ServeProcess.start([...flags, ...keys, '--name', 'tales'], {
    GQA_API_KEYS: 'three, four',
  });
  model = await loadModel(embeddedModel);
});
afterAll(async () => {
  await model.dispose();
  expect(await server.end()).toBe(0);
});

const authorization = 'Bearer four';
const complete = (fields: object, key = authorization) =>
  post(
    `${server.url}/v1/completions`,
    { model: 'tales', prompt: 'One day, Tom', temperature: 0, ...fields },
    { authorization: key },
  );

async function generated(prompt: string, maxTokens: number): Promise<string> {
  let text = '';
  for await (const piece of model.generate(prompt, { maxTokens })) text += piece.text;
  return text;
}

test('flags and environment reach engine and server', async () => {
  for (const key of ['one', 'two', 'three', 'four']) {
    expect((await complete({ max_tokens: 1 }, `Bearer ${key}`)).status).toBe(200);
  }
  expect((await complete({}, 'Bearer five')).status).toBe(401);
  const { body } = await get(`${server.url}/v1/models`, { authorization });
  expect(body.data[0]).toMatchObject({ id: 'tales', max_model_len: 200 });
  expect((await complete({ max_tokens: 200 })).body.error.code).toBe('context_length_exceeded');
  expect(server.log).toMatch(/"reqId":"req_.*"status":401/);
  expect(server.log).not.toMatch(/Tom|three|five/);
});

test('answers are those of model.generate, alone and beside others', async () => {
  const prompts = ['One day, Tom', 'Once upon a time', 'The sea was', 'Lily had a red ball'];
  const wanted = await Promise.all(prompts.map((prompt) => generated(prompt, 40)));
  const answers = await Promise.all(prompts.map((prompt) => complete({ prompt, max_tokens: 40 })));
  expect(answers.map(({ body }) => body.choices[0].text)).toEqual(wanted);
});

test('more requests than may run and wait are refused, and those that were taken finish', async () => {
  const answers = await Promise.all(
    Array.from({ length: 20 }, () => complete({ max_tokens: 60, ignore_eos: true })),
  );
  const statuses = answers.map(({ status }) => status);
  expect(statuses.filter((status) => status === 200).length).toBeGreaterThanOrEqual(8);
  expect(statuses.filter((status) => status === 429).length).toBeGreaterThan(0);
  expect(new Set(statuses)).toEqual(new Set([200, 429]));
  const refused = answers.find(({ status }) => status === 429)!;
  expect(Number(refused.headers.get('retry-after'))).toBeGreaterThanOrEqual(1);
});

test('SIGTERM: what is under way is finished, then success', async () => {
  const other = await ServeProcess.start(['--log-level', 'warn']);
  const body = { model: 'stories', prompt: 'One', max_tokens: 300, ignore_eos: true };
  const running = post(`${other.url}/v1/completions`, body);
  while ((await get(`${other.url}/stats`)).body.engine.running === 0);
  const code = other.end('SIGTERM');
  expect((await running).body.choices[0].finish_reason).toBe('length');
  expect(await code).toBe(0);
});

test('a second signal ends it at once', async () => {
  const other = await ServeProcess.start(['--log-level', 'warn']);
  const body = { model: 'stories', prompt: 'One', max_tokens: 500, ignore_eos: true, n: 16 };
  const running = post(`${other.url}/v1/completions`, body).catch(() => 'gone');
  while ((await get(`${other.url}/stats`)).body.engine.running === 0);
  other.process.kill('SIGINT');
  while (!other.log.includes('draining')) await new Promise((resolve) => setTimeout(resolve, 5));
  expect(await other.end('SIGINT')).toBe(130);
  expect(await running).toBe('gone');
});

test.each([
  [['--port', '70000'], 2, /Expected a whole number/],
  [['--precision', 'rough'], 2, /Expected one of exact, fast/],
  [['--model', '/nowhere'], 1, /INVALID_ARGUMENT: .*does not exist/],
  [['--host', '203.0.113.1'], 1, /EADDRNOTAVAIL/],
])('%j is refused', (args, status, message) => {
  const ended = gqa(['serve', ...args]);
  expect(ended.status).toBe(status);
  expect(ended.stderr).toMatch(message);
});
