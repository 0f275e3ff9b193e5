/**
 * Models and reference outputs that may lie beside the checkout (../shared): SmolLM2-135M in every form, the multi-head
 * stories model. Skipped, with the reason, where they are not.
 */
import { execFileSync } from 'node:child_process';
import { existsSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { loadModel, type Model } from '../../lib';
import {
  expectFast,
  expectGreedy,
  expectLogits,
  expectPerplexity,
  greedyTokens,
  readGolden,
  type Golden,
} from '../support/golden';
import { sharedFolder, skipped } from '../support/package';
import { openCheckpoint } from '../support/reference-checkpoint';
import { referenceLogits } from '../support/reference-llama';
import { MODEL_LOGITS } from '../tolerances';

const LONG = 600_000;

/** Why a golden file's model cannot be tested here; undefined where it can. */
function missing(file: string): string | undefined {
  if (process.env.GQA_TEST_LEAN === '1') return `${file}: a lean run`;
  if (!existsSync(join(sharedFolder, 'golden', file))) return `no ../shared/golden/${file}`;
  return undefined;
}

/** The path of a form of SmolLM2, or the reason why it cannot be had. */
function smolLM2(form?: string): { path: string } | { reason: string } {
  const script = join(sharedFolder, 'models/get.sh');
  if (!existsSync(script)) return { reason: 'no ../shared/models/get.sh' };
  try {
    const path = execFileSync(script, form === undefined ? [] : [form], {
      encoding: 'utf8',
      timeout: LONG,
    });
    return { path: path.trim() };
  } catch (error) {
    return { reason: `get.sh ${form ?? ''} failed: ${String(error).split('\n')[0]}` };
  }
}

function goldenSuite(golden: Golden, path: string, texts: string): void {
  let model: Model;
  beforeAll(async () => {
    model = await loadModel(path);
  }, LONG);
  afterAll(() => model.dispose());

  describe.each(golden.prompts.map((p) => [p.name, p] as const))('%s', (_, prompt) => {
    test('token ids', () => expect(model.tokenizer.encode(prompt.text)).toEqual(prompt.ids));
    test('logits', () => expectLogits(model, golden, prompt), LONG);
    test('greedy tokens', () => expectGreedy(model, prompt, golden.model.eos), LONG);
    if (prompt.chat !== undefined) {
      test('a chat message becomes the prompt', () => {
        expect(model.tokenizer.applyChatTemplate([{ role: 'user', content: prompt.chat! }])).toBe(
          prompt.text,
        );
      });
      test(
        'a chat message is answered as its prompt is',
        async () => {
          const answer: number[] = [];
          const options = { maxTokens: 4, temperature: 0 };
          for await (const { token } of model.generate(
            [{ role: 'user', content: prompt.chat! }],
            options,
          ))
            answer.push(token);
          expect(answer).toEqual(prompt.greedy.slice(0, 4));
        },
        LONG,
      );
    }
  });

  test.each(golden.perplexity.map((p) => [p.file, p] as const))(
    'perplexity of %s',
    (file, expected) => {
      return expectPerplexity(model, readFileSync(join(texts, file), 'utf8'), expected);
    },
    LONG,
  );
}

const texts = join(sharedFolder, 'models/texts');

describe('SmolLM2-135M', () => {
  const found = smolLM2();
  const reason = missing('smollm2.json') ?? ('reason' in found ? found.reason : undefined);
  if (reason !== undefined || 'reason' in found) {
    skipped(String(reason))('golden', () => undefined);
    return;
  }
  const golden = readGolden(join(sharedFolder, 'golden/smollm2.json'));
  goldenSuite(golden, found.path, texts);
  test(
    "precision 'fast' stays within its promise",
    () => expectFast(found.path, golden, (file) => readFileSync(join(texts, file), 'utf8')),
    LONG,
  );
});

describe.each(['stories', 'stories-mha'])('%s', (name) => {
  const reason = missing(`${name}.json`);
  if (reason !== undefined) {
    skipped(reason)('golden', () => undefined);
    return;
  }
  const golden = readGolden(join(sharedFolder, `golden/${name}.json`));
  describe('Hugging Face folder', () =>
    goldenSuite(golden, join(sharedFolder, 'models', name), texts));

  test(
    'Q8_0 GGUF agrees with its own values',
    async () => {
      await expectOwnValues(
        join(sharedFolder, 'models', name, `${name}-q8_0.gguf`),
        golden.prompts[0].ids,
      );
    },
    LONG,
  );

  test(
    'the text of the Q8_0 GGUF is tokenised as the folder is',
    async () => {
      const model = await loadModel(join(sharedFolder, 'models', name, `${name}-q8_0.gguf`));
      for (const prompt of golden.prompts) {
        expect([prompt.name, model.tokenizer.encode(prompt.text)]).toEqual([
          prompt.name,
          prompt.ids,
        ]);
      }
      await model.dispose();
    },
    LONG,
  );
});

/** The model's logits against a float64 forward pass over the file's own values, and its choice of the next token. */
async function expectOwnValues(path: string, ids: number[]): Promise<void> {
  const { config, weights } = openCheckpoint(path);
  const expected = referenceLogits(config, weights, ids);
  const largest = expected.reduce((m, x) => Math.max(m, Math.abs(x)), 0);
  const model = await loadModel(path);
  const logits = await model.logits(ids);
  const error = expected.reduce((m, x, i) => Math.max(m, Math.abs(x - logits[i])), 0) / largest;
  expect(error).toBeLessThan(MODEL_LOGITS);
  const best = expected.indexOf(expected.reduce((a, b) => Math.max(a, b)));
  expect(await greedyTokens(model, ids, 1)).toEqual([best]);
  await model.dispose();
}

describe('SmolLM2-135M rewritten', () => {
  for (const form of ['Q8_0', 'Q4_0', 'F16', 'hf']) {
    const lack = missing('smollm2.json');
    const found = lack === undefined ? smolLM2(form) : { reason: lack };
    if ('reason' in found) {
      skipped(`SmolLM2 ${form}: ${found.reason}`)(form, () => undefined);
      continue;
    }
    const golden = readGolden(join(sharedFolder, 'golden/smollm2.json'));
    test(
      `${form} agrees with its own values`,
      async () => {
        await expectOwnValues(found.path, golden.prompts[0].ids.slice(0, 6));
      },
      LONG,
    );
    test(
      `${form} goes on with the digits as the original does`,
      async () => {
        const model = await loadModel(found.path);
        const prompt = golden.prompts.find((p) => p.name === 'digits')!;
        expect(model.tokenizer.encode(prompt.text)).toEqual(prompt.ids);
        // Weights rounded once more move a logit by more than the margin of exact arithmetic.
        await expectGreedy(model, prompt, golden.model.eos, 1);
        await model.dispose();
      },
      LONG,
    );
  }
});
