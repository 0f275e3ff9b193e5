/** gqa generate on the embedded model. */
import { gqa, gqaStreaming } from './cli-process';

const JS = { GQA_BACKEND: 'js', GQA_ISA: '', GQA_THREADS: '' };
const PROMPT = 'Once upon a time';

function generated(args: string[], options: Parameters<typeof gqa>[1] = {}) {
  const { status, stdout, stderr } = gqa(['generate', ...args, '--json'], options);
  expect([status, stderr]).toEqual([0, expect.stringContaining('tokens/s')]);
  return JSON.parse(stdout);
}

test('text goes to stdout, speed and backend to stderr', () => {
  const args = [PROMPT, '--max-tokens', '24'];
  const { status, stdout, stderr } = gqa(['generate', ...args]);
  const outcome = generated(args);
  expect(status).toBe(0);
  expect(stdout).toBe(`${outcome.text}\n`);
  expect(outcome.text.length).toBeGreaterThan(20);
  const { kind, isa } = outcome.backend;
  expect(stderr.trim().split('\n')).toEqual([
    expect.stringMatching(/prompt \d+ tokens, \d+ tokens\/s .* generated 24 tokens, \d+ tokens\/s/),
  ]);
  expect(stderr).toContain(`${kind} ${isa}, `);
  expect(stderr).not.toContain('\x1b');
});

test('without arguments it writes a story, the same each time and on both backends', () => {
  const first = generated(['--max-tokens', '48']);
  const again = generated(['--max-tokens', '48']);
  const js = generated(['--max-tokens', '48'], { env: JS });
  expect(first.tokenIds).toHaveLength(48);
  expect(again.tokenIds).toEqual(first.tokenIds);
  expect(js.backend.kind).toBe('js');
  expect(js.tokenIds).toEqual(first.tokenIds);
  expect(js.text).toBe(first.text);
});

test('--json says all about the run', () => {
  const outcome = generated([PROMPT, '--max-tokens', '6', '--seed', '9', '--temperature', '1']);
  expect(outcome).toEqual({
    model: expect.any(String),
    prompt: PROMPT,
    text: expect.any(String),
    tokenIds: expect.any(Array),
    promptTokens: expect.any(Number),
    promptSeconds: expect.any(Number),
    promptTokensPerSecond: expect.any(Number),
    tokens: 6,
    seconds: expect.any(Number),
    tokensPerSecond: expect.any(Number),
    finishReason: 'length',
    seed: 9,
    backend: expect.objectContaining({ kind: expect.stringMatching(/^(native|js)$/) }),
    weights: { source: 'packed', path: null, reason: expect.any(String) },
  });
  expect(outcome.tokenIds).toHaveLength(6);
});

test('a weight cache that cannot be used is told of, and no more', () => {
  const args = ['generate', PROMPT, '--max-tokens', '2', '--json'];
  const file = __filename;
  const { status, stdout, stderr } = gqa([...args, '--weight-cache', `${file}/cache`]);
  const { reason } = JSON.parse(stdout).weights;
  expect(status).toBe(0);
  expect(stderr).toContain(`weights packed in memory: ${reason}\n`);
  const without = generated([PROMPT, '--max-tokens', '2', '--no-weight-cache']);
  expect(without.weights.reason).toBe('the weight cache was not wanted');
});

test('sampling options reach the model', () => {
  const greedy = generated([PROMPT, '--max-tokens', '12', '--temperature', '0']).tokenIds;
  const narrow = ['--max-tokens', '12', '--temperature', '2'];
  expect(generated([PROMPT, ...narrow, '--top-k', '1']).tokenIds).toEqual(greedy);
  expect(generated([PROMPT, ...narrow, '--min-p', '1']).tokenIds).toEqual(greedy);
  expect(generated([PROMPT, ...narrow, '--top-p', '0']).tokenIds).toEqual(greedy);
  const seeded = (seed: string) =>
    generated([PROMPT, ...narrow, '--top-k', '0', '--top-p', '1', '--seed', seed]).tokenIds;
  expect(seeded('1')).not.toEqual(seeded('2'));
});

test('the prompt can come from stdin', () => {
  const args = ['--max-tokens', '12', '--temperature', '0'];
  const piped = generated(['-', ...args], { input: `${PROMPT}\n` });
  expect(piped.prompt).toBe(PROMPT);
  expect(piped.tokenIds).toEqual(generated([PROMPT, ...args]).tokenIds);
});

test('--stop ends before any of its texts', () => {
  const args = [PROMPT, '--max-tokens', '60', '--temperature', '0'];
  const whole: string = generated(args).text;
  const end = whole.search(/[.a]/);
  expect(end).toBeGreaterThan(0);
  const stopped = generated([...args, '--stop', '.', '--stop', 'a']);
  expect(stopped.text).toBe(whole.slice(0, end));
  expect(stopped.finishReason).toBe('stop');
});

test('cache options reach the model', () => {
  const args = [PROMPT, '--max-tokens', '24', '--temperature', '0'];
  const whole = generated(args).tokenIds;
  const narrow = generated([...args, '--window', '6', '--sink-tokens', '1', '--kv-dtype', 'bf16']);
  expect(narrow.tokenIds).not.toEqual(whole);
  const short = generated([PROMPT, '--max-tokens', '100', '--context-length', '16']);
  expect(short.promptTokens + short.tokens).toBeLessThanOrEqual(16);
  expect(short.finishReason).toBe('context');
});

describe('failures exit with 1 and say which', () => {
  test.each([
    [['--model', '/nowhere/at/all', 'x'], /^gqa: [A-Z_]+: .*\/nowhere\/at\/all/],
    [['--context-length', '100000'], /^gqa: OUT_OF_RANGE: .*100000/],
    [['--chat', 'Hello'], /^gqa: INVALID_ARGUMENT: .*chat template/],
    [[PROMPT.repeat(200)], /^gqa: CONTEXT_EXCEEDED: /],
  ])('%j', (args, message) => {
    const { status, stdout, stderr } = gqa(['generate', ...args]);
    expect(stderr).toMatch(message);
    expect(stderr).not.toContain('    at ');
    expect([status, stdout]).toEqual([1, '']);
  });
});

test('SIGINT ends it cleanly with 130', async () => {
  const whole = generated([PROMPT, '--max-tokens', '400', '--temperature', '0'], { env: JS });
  const interrupted = () =>
    gqaStreaming(
      ['generate', PROMPT, '--max-tokens', '400', '--temperature', '0'],
      (child) => child.kill('SIGINT'),
      JS,
    );
  let run = await interrupted();
  // On a busy machine the story, half a second long, can end before the signal comes.
  for (let tries = 1; run.status === 0 && tries < 5; tries++) run = await interrupted();
  const { status, stdout, stderr } = run;
  expect(status).toBe(130);
  expect(stderr).toContain('(cancelled)');
  expect(stdout.endsWith('\n')).toBe(true);
  expect(whole.text.startsWith(stdout.slice(0, -1))).toBe(true);
  expect(stdout.length).toBeLessThan(whole.text.length);
});

test('a reader that closes the pipe ends it quietly', async () => {
  const { status, stderr } = await gqaStreaming(
    ['generate', PROMPT, '--max-tokens', '400', '--temperature', '0'],
    (child) => child.stdout!.destroy(),
    JS,
  );
  expect([status, stderr]).toEqual([0, '']);
});
