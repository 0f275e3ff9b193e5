/** The embedded model against its float64 reference, on whichever backend this process runs. */
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { loadModel, type Model } from '../../lib';
import {
  expectFast,
  expectForcedArgmax,
  expectGreedy,
  expectLogits,
  expectPerplexity,
  greedyTokens,
  readGolden,
} from '../support/golden';
import { embeddedModel, goldenFolder } from '../support/package';
import { axis } from '../support/samples';

const golden = readGolden(join(goldenFolder, 'stories.json'));
let model: Model;

beforeAll(async () => {
  model = await loadModel(embeddedModel);
});
afterAll(() => model.dispose());

describe.each(golden.prompts.map((p) => [p.name, p] as const))('%s', (_, prompt) => {
  test('token ids', () => {
    expect(model.tokenizer.encode(prompt.text)).toEqual(prompt.ids);
  });
  test('logits', () => expectLogits(model, golden, prompt));
  test('greedy tokens', () => expectGreedy(model, prompt, golden.model.eos));
  test('most likely token along the golden continuation', () =>
    expectForcedArgmax(model, prompt, axis([1, 7, 20, 31, 60, 95])));
  test('text decodes back', () => {
    expect(model.tokenizer.decode(prompt.greedy)).toBe(prompt.text_out);
  });
});

test('the pieces of text add up, and a string prompt is its ids', async () => {
  const prompt = golden.prompts[0];
  const pieces: string[] = [];
  for await (const { text } of model.generate(prompt.text, { maxTokens: 40, temperature: 0 }))
    pieces.push(text);
  expect(pieces.join('')).toBe(model.tokenizer.decode(prompt.greedy.slice(0, 40)));
});

test('perplexity', () => {
  const text = readFileSync(join(goldenFolder, 'stories-sample.txt'), 'utf8');
  return expectPerplexity(model, text, golden.perplexity[0]);
});

test("precision 'fast' stays within its promise", () =>
  expectFast(embeddedModel, golden, (file) => readFileSync(join(goldenFolder, file), 'utf8')));

test('score is the mean of what logits say, token by token', async () => {
  const ids = golden.prompts[0].ids;
  let nll = 0;
  for (let n = 1; n < ids.length; n++) {
    const logits = await model.logits(ids.slice(0, n));
    const max = logits.reduce((a, b) => Math.max(a, b));
    const sum = logits.reduce((s, x) => s + Math.exp(x - max), 0);
    nll += max + Math.log(sum) - logits[ids[n]];
  }
  const score = await model.score(ids);
  expect(score.meanNll).toBeCloseTo(nll / (ids.length - 1), 4);
  expect(score.perplexity).toBeCloseTo(Math.exp(score.meanNll), 4);
});

test('a seed makes a sample repeatable, another seed another text', async () => {
  const sample = async (seed: number) => {
    const tokens: number[] = [];
    const options = { maxTokens: 24, temperature: 1, topK: 50, topP: 0.95, seed };
    for await (const { token } of model.generate('Once', options)) tokens.push(token);
    return tokens.join();
  };
  expect(await sample(7)).toBe(await sample(7));
  const others = await Promise.all([1, 2, 3].map(sample));
  expect(new Set(others).size).toBeGreaterThan(1);
});

test('a windowed cache with sink tokens writes past its capacity', async () => {
  const small = await loadModel(embeddedModel, {
    kvCache: { dtype: 'f16', window: 64, sinkTokens: 4 },
  });
  const tokens = await greedyTokens(small, golden.prompts[0].ids, 100);
  // The window is longer than prompt and first steps: those are the full model's.
  expect(tokens.slice(0, 20)).toEqual(golden.prompts[0].greedy.slice(0, 20));
  expect(tokens.length).toBe(100);
  await small.dispose();
});

test('positions counted within the cache: text past the context length, as well predicted as within it', async () => {
  const kvCache = { window: 192, sinkTokens: 4, positions: 'cache' } as const;
  const endless = await loadModel(embeddedModel, { kvCache });
  const ids = endless.tokenizer.encode(
    readFileSync(join(goldenFolder, 'stories-sample.txt'), 'utf8'),
  );
  expect(ids.length).toBeGreaterThan(endless.contextLength + 100);
  const { perplexity } = await endless.score(ids);
  expect(perplexity).toBeLessThan(1.5 * golden.perplexity[0].perplexity);
  const more = endless.contextLength + 60 - 470;
  expect(await greedyTokens(endless, ids.slice(0, 470), more)).toHaveLength(more);
  await endless.dispose();
});

test('16-bit caches stay near the f32 one', async () => {
  for (const dtype of ['f16', 'bf16'] as const) {
    const other = await loadModel(embeddedModel, { kvCache: { dtype } });
    const prompt = golden.prompts[0];
    const tokens = await greedyTokens(other, prompt.ids, 8);
    const sure = prompt.margin.slice(0, 8).findIndex((m) => m < 0.5);
    expect(tokens.slice(0, sure < 0 ? 8 : sure)).toEqual(
      prompt.greedy.slice(0, sure < 0 ? 8 : sure),
    );
    await other.dispose();
  }
});
