import { loadArchitecture } from '../../../lib/model/arch';
import { openCheckpoint } from '../../../lib/model/checkpoint';
import type { KvCacheSettings } from '../../../lib/model/cache-settings';
import { Runner, type GenerateJob } from '../../../lib/model/runner';
import type { LanguageModel } from '../../../lib/model/types';
import { embeddedModel } from '../../support/package';

const GREEDY = { temperature: 0, topK: 0, topP: 1, minP: 0, repetitionPenalty: 1, seed: 0 };
const WHOLE: KvCacheSettings = { dtype: 'f32', window: undefined, sinkTokens: 0 };
const PROMPT = [1, 507, 663, 260, 556, 13];
const never = () => false;

let model: LanguageModel;
beforeAll(() => {
  const { config, weights } = openCheckpoint(embeddedModel);
  model = loadArchitecture(config, weights);
  weights.close();
});
afterAll(() => model.dispose());

function job(changes: Partial<GenerateJob>): GenerateJob {
  return { ids: PROMPT, maxTokens: 8, sampling: GREEDY, endIds: [], ...changes };
}

function generate(runner: Runner, changes: Partial<GenerateJob> = {}, cancelled = never) {
  const tokens: number[] = [];
  const reason = runner.generate(job(changes), cancelled, (token) => tokens.push(token));
  return { tokens, reason };
}

describe('Runner', () => {
  it('goes on token by token as it would from each longer prompt', () => {
    const runner = new Runner(model, 512, WHOLE);
    const { tokens, reason } = generate(runner);
    expect(reason).toBe('length');
    for (let n = 0; n < tokens.length; n++) {
      const longer = [...PROMPT, ...tokens.slice(0, n)];
      expect(generate(runner, { ids: longer, maxTokens: 1 }).tokens).toEqual([tokens[n]]);
    }
  });

  it('ends before an end token', () => {
    const runner = new Runner(model, 512, WHOLE);
    const { tokens } = generate(runner);
    expect(generate(runner, { endIds: [tokens[3]] })).toEqual({
      tokens: tokens.slice(0, tokens.indexOf(tokens[3])),
      reason: 'end',
    });
  });

  it('fills the context to the last token and no further', () => {
    const runner = new Runner(model, 10, WHOLE);
    expect(generate(runner)).toMatchObject({ reason: 'context' });
    expect(generate(runner).tokens).toHaveLength(10 - PROMPT.length);
    expect(generate(runner, { maxTokens: 4 })).toMatchObject({ reason: 'length' });
    expect(generate(new Runner(model, PROMPT.length, WHOLE))).toEqual({
      tokens: [],
      reason: 'context',
    });
    expect(generate(runner, { maxTokens: 0 })).toEqual({ tokens: [], reason: 'length' });
  });

  it('refuses prompts that do not fit, and empty ones', () => {
    const runner = new Runner(model, PROMPT.length - 1, WHOLE);
    for (const run of [
      generate,
      (r: Runner) => r.logits(PROMPT, never),
      (r: Runner) => r.score(PROMPT, never),
    ]) {
      expect(() => run(runner)).toThrow(
        expect.objectContaining({ code: 'CONTEXT_EXCEEDED' }) as Error,
      );
    }
    expect(() => generate(runner, { ids: [] })).toThrow(
      expect.objectContaining({ code: 'EMPTY_PROMPT' }) as Error,
    );
  });

  it('goes past the context length with a window', () => {
    const runner = new Runner(model, 10, { dtype: 'f32', window: 8, sinkTokens: 2 });
    const { tokens, reason } = generate(runner, { maxTokens: 40 });
    expect([tokens.length, reason]).toEqual([40, 'length']);
    const whole = generate(new Runner(model, 512, WHOLE), { maxTokens: 4 });
    // Up to 10 tokens the window and the sinks hide nothing.
    expect(tokens.slice(0, 4)).toEqual(whole.tokens);
    expect(
      generate(runner, { ids: Array.from({ length: 300 }, () => 507), maxTokens: 1 }).tokens,
    ).toHaveLength(1);
  });

  it('stops within a step of being told', () => {
    const runner = new Runner(model, 512, WHOLE);
    let asked = 0;
    const { tokens, reason } = generate(runner, { maxTokens: 100 }, () => ++asked > 5);
    expect(reason).toBe('cancelled');
    expect(tokens.length).toBeLessThan(6);
    expect(generate(runner, {}, () => true)).toEqual({ tokens: [], reason: 'cancelled' });
    expect(runner.logits(PROMPT, () => true)).toBeNull();
    expect(runner.score(PROMPT, () => true)).toBeNull();
  });

  it('scores what its logits say', () => {
    const runner = new Runner(model, 512, WHOLE);
    const ids = Array.from({ length: 150 }, (_, i) => (i * 37) % 2048);
    const score = runner.score(ids, never)!;
    let nll = 0;
    for (const n of [1, 64, 65, 149]) {
      const logits = runner.logits(ids.slice(0, n), never)!;
      const sum = logits.reduce((total, x) => total + Math.exp(x), 0);
      nll += Math.log(sum) - logits[ids[n]];
    }
    expect(score.tokens).toBe(149);
    expect(score.perplexity).toBeCloseTo(Math.exp(score.meanNll), 6);
    const four = [1, 64, 65, 149].map((n) => {
      const with1 = n < 2 ? 0 : runner.score(ids.slice(0, n), never)!.meanNll * (n - 1);
      return runner.score(ids.slice(0, n + 1), never)!.meanNll * n - with1;
    });
    expect(four.reduce((a, b) => a + b)).toBeCloseTo(nll, 3);
    expect(() => runner.score([1], never)).toThrow(/at least 2/);
  });

  it('leaves the cache clean for the next call, smaller or larger', () => {
    const runner = new Runner(model, 512, WHOLE);
    const first = generate(runner);
    generate(runner, { ids: Array.from({ length: 400 }, (_, i) => i), maxTokens: 3 });
    expect(() => generate(runner, { ids: [99_999] })).toThrow();
    expect(generate(runner)).toEqual(first);
  });
});
