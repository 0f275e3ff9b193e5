/** Checks a loaded model against golden data (test/golden/README.md states the format and the rules). */
import { readFileSync } from 'node:fs';
import { loadModel, type Model } from '../../lib';
import { FAST_MARGIN, FAST_PERPLEXITY, MODEL_LOGITS, MODEL_MARGIN } from '../tolerances';

export interface GoldenPrompt {
  name: string;
  text: string;
  /** The user message that the chat template turned into `text`. */
  chat?: string;
  ids: number[];
  greedy: number[];
  margin: number[];
  text_out: string;
  logits_at_probe: number[];
  top5: [number, number][];
}

export interface Golden {
  model: { eos: number };
  probe: number[];
  prompts: GoldenPrompt[];
  perplexity: { file: string; tokens: number; mean_nll: number; perplexity: number }[];
}

export function readGolden(path: string): Golden {
  return JSON.parse(readFileSync(path, 'utf8')) as Golden;
}

/** The tokens that any rounding must reproduce: up to the first narrow step, and without the end token. */
export function certainTokens(prompt: GoldenPrompt, eos: number, margin = MODEL_MARGIN): number[] {
  const narrow = prompt.margin.findIndex((m) => m < margin);
  const sure = narrow < 0 ? prompt.greedy : prompt.greedy.slice(0, narrow);
  return sure.filter((id) => id !== eos);
}

export async function greedyTokens(
  model: Model,
  prompt: string | number[],
  count: number,
): Promise<number[]> {
  const tokens: number[] = [];
  if (count === 0) return tokens;
  for await (const { token } of model.generate(prompt, { maxTokens: count, temperature: 0 }))
    tokens.push(token);
  return tokens;
}

/** Greedy continuation of ids, token for token; where the golden ends with the end token, so must the model. */
export async function expectGreedy(
  model: Model,
  prompt: GoldenPrompt,
  eos: number,
  margin = MODEL_MARGIN,
): Promise<void> {
  const expected = certainTokens(prompt, eos, margin);
  const ends = prompt.margin.every((m) => m >= margin) && prompt.greedy.at(-1) === eos;
  const tokens = await greedyTokens(
    model,
    prompt.ids,
    ends ? expected.length + 5 : expected.length,
  );
  expect(tokens).toEqual(expected);
}

/** After the prompt, and after each of `steps` of its continuation, the most likely token is the golden's. */
export async function expectForcedArgmax(
  model: Model,
  prompt: GoldenPrompt,
  steps: number[],
): Promise<void> {
  for (const step of steps) {
    if (step >= prompt.greedy.length || prompt.margin[step] < MODEL_MARGIN) continue;
    const logits = await model.logits([...prompt.ids, ...prompt.greedy.slice(0, step)]);
    const best = logits.indexOf(logits.reduce((a, b) => Math.max(a, b)));
    expect([prompt.name, step, best]).toEqual([prompt.name, step, prompt.greedy[step]]);
    const runnerUp = logits.reduce((m, x, id) => (id === best ? m : Math.max(m, x)), -Infinity);
    // Two logits of about 20, each within 1e-3 of the largest.
    expect(Math.abs(logits[best] - runnerUp - prompt.margin[step])).toBeLessThan(
      2 * MODEL_LOGITS * 30,
    );
  }
}

export function logitsError(logits: Float32Array, golden: Golden, prompt: GoldenPrompt): number {
  const largest = Math.max(...prompt.logits_at_probe.map(Math.abs));
  const errors = golden.probe.map((id, i) => Math.abs(logits[id] - prompt.logits_at_probe[i]));
  return Math.max(...errors) / largest;
}

export async function expectLogits(
  model: Model,
  golden: Golden,
  prompt: GoldenPrompt,
): Promise<void> {
  const logits = await model.logits(prompt.ids);
  expect(logits).toBeInstanceOf(Float32Array);
  expect(logits.length).toBe(model.config.vocabSize);
  expect(logitsError(logits, golden, prompt)).toBeLessThanOrEqual(MODEL_LOGITS);
  for (const [id, value] of prompt.top5)
    expect(Math.abs(logits[id] - value)).toBeLessThan(MODEL_LOGITS * 30);
}

/** What `precision: 'fast'` promises: greedy tokens where the margin is wide, perplexity within 1 %. */
export async function expectFast(
  path: string,
  golden: Golden,
  textOf: (file: string) => string,
): Promise<void> {
  const model = await loadModel(path, { precision: 'fast' });
  for (const prompt of golden.prompts) {
    const expected = certainTokens(prompt, golden.model.eos, FAST_MARGIN);
    const tokens = await greedyTokens(model, prompt.ids, expected.length);
    expect([prompt.name, ...tokens]).toEqual([prompt.name, ...expected]);
  }
  for (const { file, tokens, perplexity } of golden.perplexity) {
    const score = await model.score(model.tokenizer.encode(textOf(file)).slice(0, tokens));
    const error = Math.abs(score.perplexity / perplexity - 1);
    if (error >= FAST_PERPLEXITY) throw new Error(`${file}: perplexity off by ${error}`);
  }
  await model.dispose();
}

export async function expectPerplexity(
  model: Model,
  text: string,
  expected: Golden['perplexity'][number],
): Promise<void> {
  const ids = model.tokenizer.encode(text).slice(0, expected.tokens);
  const score = await model.score(ids);
  expect(score.tokens).toBe(expected.tokens - 1);
  expect(Math.abs(score.meanNll / expected.mean_nll - 1)).toBeLessThan(1e-4);
  expect(Math.abs(score.perplexity / expected.perplexity - 1)).toBeLessThan(1e-3);
}
