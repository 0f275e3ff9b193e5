/** The engine over the embedded model: what it answers is what the model alone answers, whatever else runs. */
import { Engine, loadModel, type Model } from '../../lib';
import { readAll, request, sampling } from '../support/engine';
import { embeddedModel } from '../support/package';

const PROMPTS = [
  'Once upon a time',
  'Lily and Ben went to the park. They saw a big',
  'The cat was hungry, so',
  'One day, a little boy named Tim found a shiny stone in the garden. He wanted to show it to',
];

let model: Model;
let engine: Engine;

beforeAll(async () => {
  model = await loadModel(embeddedModel);
  engine = await Engine.start(embeddedModel);
});
afterAll(async () => {
  await engine.dispose();
  await model.dispose();
});

async function alone(prompt: readonly number[], maxTokens: number): Promise<number[]> {
  const ids: number[] = [];
  for await (const { token } of model.generate(prompt, { maxTokens })) ids.push(token);
  return ids;
}

test('many requests at once answer what each would alone', async () => {
  const prompts = PROMPTS.map((text) => engine.tokenizer.encode(text));
  const answers = await Promise.all(
    prompts.map((prompt) => readAll(engine.submit(request({ prompt, maxTokens: 60 })))),
  );
  for (const [i, prompt] of prompts.entries()) {
    const expected = await alone(prompt, 60);
    expect(answers[i].ids).toEqual(expected);
    const { result } = answers[i];
    expect(result.text).toBe(answers[i].texts.join(''));
    expect(result.usage.promptTokens).toBe(prompt.length);
    expect(result.usage.completionTokens).toBe(expected.length);
    expect(result.timings.firstTokenMs).toBeGreaterThan(0);
  }
  expect(engine.stats().running).toBe(0);
});

test('where the budget is small sequences lose their blocks and answer the same', async () => {
  const small = await Engine.start(embeddedModel, { budgetTokens: 320, contextLength: 256 });
  const prompts = PROMPTS.map((text) => engine.tokenizer.encode(text));
  const requests = [...prompts, ...prompts].map((prompt) => request({ prompt, maxTokens: 150 }));
  const answers = await Promise.all(requests.map((one) => readAll(small.submit(one))));
  const expected = await Promise.all(prompts.map((prompt) => alone(prompt, 150)));
  expect(answers.map(({ ids }) => ids)).toEqual([...expected, ...expected]);
  expect(small.stats().preempted).toBeGreaterThan(0);
  await small.dispose();
});

test('a request needs no more than a prompt, and its result no reader', async () => {
  const prompt = engine.tokenizer.encode('Once upon a time');
  const { text, usage } = await engine.submit({ prompt, maxTokens: 200, ignoreEos: true }).result;
  expect(usage.completionTokens).toBe(200);
  const { result } = await readAll(
    engine.submit(request({ prompt, maxTokens: 200, ignoreEos: true })),
  );
  expect(text).toBe(result.text);
  await expect(engine.submit({ prompt, maxTokens: 1 }).result).resolves.toMatchObject({
    finishReason: 'length',
  });
});

test('a seed gives the same text whatever else runs', async () => {
  const prompt = engine.tokenizer.encode('Once upon a time');
  const one = request({ prompt, sampling: sampling({ temperature: 1, topP: 0.95, seed: 7 }) });
  const [first] = await Promise.all([readAll(engine.submit(one))]);
  const others = [8, 9, 10].map((seed) =>
    readAll(engine.submit({ ...one, sampling: { ...one.sampling, seed } })),
  );
  const again = await readAll(engine.submit(one));
  expect(again.ids).toEqual(first.ids);
  const different = await Promise.all(others);
  expect(different.some(({ ids }) => ids.join() !== first.ids.join())).toBe(true);
});
