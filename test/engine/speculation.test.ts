/** Speculation: the same answers to the last token, greedy or sampled, whatever drafts. */
import { join } from 'node:path';
import { Engine, type SpeculationOptions } from '../../lib';
import { Acceptance } from '../../lib/engine/acceptance';
import { draftLengths } from '../../lib/engine/draft-lengths';
import { lookUp } from '../../lib/engine/prompt-lookup';
import { StepCost } from '../../lib/engine/step-cost';
import { readAll, request, sampling, type Answer } from '../support/engine';
import { embeddedModel, goldenFolder } from '../support/package';
import { expectRefused } from '../support/refusals';

describe('prompt lookup', () => {
  test('drafts what followed the longest earlier run, and the latest of equals', () => {
    expect(lookUp([1, 2, 3, 9, 2, 3, 8, 1, 2, 3], 4, 2)).toEqual([9, 2]);
    expect(lookUp([1, 2, 3, 9, 2, 3, 8, 1, 2, 3], 2, 2)).toEqual([8, 1]);
    expect(lookUp([5, 5, 5, 5], 4, 3)).toEqual([5]);
  });

  test('drafts nothing after a single token, unless asked to', () => {
    expect(lookUp([1, 2, 3, 1], 4, 2)).toEqual([]);
    expect(lookUp([1, 2, 3, 1], 1, 2)).toEqual([2, 3]);
    expect(lookUp([1], 4, 2)).toEqual([]);
  });
});

describe('lengths of drafts', () => {
  const costing = (ms: (rows: number) => number): StepCost => {
    const cost = new StepCost();
    for (let rows = 1; rows <= 32; rows++) cost.record(rows, ms(rows));
    return cost;
  };
  const candidate = (acceptance: number, cost = 0) => ({ most: 8, acceptance, cost });

  test('as long as rows cost nothing, all there is; where they cost as much as steps, none', () => {
    const free = { rows: 1, most: 100, cost: costing(() => 10) };
    expect(draftLengths([candidate(0.9)], 1, free)).toEqual([8]);
    const dear = { rows: 1, most: 100, cost: costing((rows) => 10 * rows) };
    expect(draftLengths([candidate(0.9)], 1, dear)).toEqual([0]);
  });

  test('beyond a row that is dear those after it are tried', () => {
    const steps = { rows: 1, most: 100, cost: costing((rows) => (rows === 1 ? 10 : 20)) };
    expect(draftLengths([candidate(0.9)], 1, steps)).toEqual([8]);
  });

  test('who is more likely right gets more; drafting costs count; room is kept', () => {
    const room = { rows: 2, most: 6, cost: costing((rows) => 10 + rows / 2) };
    const [sure, unsure] = draftLengths([candidate(0.95), candidate(0.3)], 2, room);
    expect(sure).toBeGreaterThan(unsure);
    expect(sure + unsure).toBeLessThanOrEqual(6);
    expect(draftLengths([candidate(0.95, 100)], 2, room)).toEqual([0]);
  });

  test('acceptance follows what is right, and hopes again after a rest', () => {
    const acceptance = new Acceptance();
    for (let i = 0; i < 20; i++) acceptance.learn(4, 0);
    const low = acceptance.rate;
    expect(low).toBeLessThan(0.1);
    for (let i = 0; i < 100; i++) acceptance.rest();
    expect(acceptance.rate).toBeGreaterThan(0.4);
    for (let i = 0; i < 10; i++) acceptance.learn(4, 4);
    expect(acceptance.rate).toBeGreaterThan(0.95);
  });
});

describe('an engine that drafts', () => {
  const KINDS: [string, SpeculationOptions][] = [
    ['by prompt lookup', { lookup: true }],
    ['by lookup of single tokens', { lookup: { ngram: 1, draft: 6 } }],
    ['by a model', { draftModel: embeddedModel, draftTokens: 5 }],
    ['by both', { lookup: true, draftModel: embeddedModel }],
  ];
  let plain: Engine;
  let expected: Answer[];
  const answersOf = (engine: Engine): Promise<Answer[]> =>
    Promise.all(requests().map((one) => readAll(engine.submit(one))));

  beforeAll(async () => {
    plain = await Engine.start(embeddedModel);
    expected = await answersOf(plain);
  });
  afterAll(() => plain.dispose());

  function requests() {
    const story = 'Lily had a red ball. She threw the red ball. Ben caught the red ball. ';
    const texts = [story + story, 'Once upon a time', story.repeat(3), 'The dog'];
    return texts.flatMap((text) => {
      const prompt = plain.tokenizer.encode(text);
      return [
        request({ prompt, maxTokens: 70, ignoreEos: true }),
        request({ prompt, maxTokens: 40, sampling: sampling({ temperature: 0.8, seed: 5 }) }),
        request({ prompt, maxTokens: 30, sampling: sampling({ repetitionPenalty: 1.2 }) }),
        request({ prompt, maxTokens: 30, logprobs: 3 }),
      ];
    });
  }

  test.each(KINDS)('%s answers the same', async (_, speculation) => {
    // A small budget, so that sequences lose their blocks in between.
    const engine = await Engine.start(embeddedModel, { speculation, budgetTokens: 1024 });
    const all = requests();
    const answers = await answersOf(engine);
    expect(answers.map(({ ids }) => ids)).toEqual(expected.map(({ ids }) => ids));
    expect(answers.map(({ result }) => result.text)).toEqual(
      expected.map(({ result }) => result.text),
    );
    answers.forEach(({ tokens }, i) =>
      tokens.forEach(({ logprob }, j) => {
        if (all[i].logprobs === 3) expect(logprob).toBeCloseTo(expected[i].tokens[j].logprob, 3);
      }),
    );
    const { drafted, accepted } = engine.stats().speculation;
    expect(accepted).toBeGreaterThan(0);
    expect(drafted).toBeGreaterThanOrEqual(accepted);
    const own = answers.reduce((sum, { result }) => sum + (result.speculation?.drafted ?? 0), 0);
    expect(own).toBe(drafted);
    await engine.dispose();
  });

  test('a draft model of another vocabulary is refused', async () => {
    const draftModel = join(goldenFolder, 'arch/llama3');
    await expectRefused('INVALID_ARGUMENT', 'options.speculation.draftModel', () =>
      Engine.start(embeddedModel, { speculation: { draftModel } }),
    );
  });
});
