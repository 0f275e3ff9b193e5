/**
 * The engine over models with windows, of two RoPEs and of experts: every answer of a crowd is the one that the model gives
 * alone, with windows long passed, shared beginnings and too little memory for all at once.
 */
import {
  copyFileSync,
  mkdtempSync,
  readFileSync,
  readdirSync,
  rmSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { Engine } from '../../lib/engine';
import { loadArchitecture } from '../../lib/model/arch';
import { openCheckpoint } from '../../lib/model/checkpoint';
import { readAll, request } from '../support/engine';
import { ARCHITECTURE_GOLDENS } from '../support/golden-architectures';
import { embeddedModel } from '../support/package';
import { Random } from '../support/random';

const CONTEXT = 1024;
const ANSWER = 24;
const random = new Random(8);
const ids = (count: number): number[] => Array.from({ length: count }, () => random.int(3, 127));
const PROMPTS = [5, 650, 40, 300].map(ids);
PROMPTS.push([...PROMPTS[1].slice(0, 500), ...ids(30)], [...PROMPTS[3].slice(0, 200), ...ids(9)]);

/** The golden's checkpoint for longer texts, with a tokenizer, which no engine goes without. */
function writeFolder(name: string): string {
  const golden = join(ARCHITECTURE_GOLDENS, name);
  const folder = mkdtempSync(join(tmpdir(), 'gqa-engine-'));
  for (const file of readdirSync(golden)) copyFileSync(join(golden, file), join(folder, file));
  for (const file of ['tokenizer.json', 'tokenizer_config.json']) {
    copyFileSync(join(embeddedModel, file), join(folder, file));
  }
  const config = JSON.parse(readFileSync(join(golden, 'config.json'), 'utf8')) as object;
  const longer = { ...config, max_position_embeddings: CONTEXT };
  writeFileSync(join(folder, 'config.json'), JSON.stringify(longer));
  return folder;
}

/** Greedy tokens after each prompt, each in a cache of its own. */
function alone(folder: string): number[][] {
  const { config, weights } = openCheckpoint(folder);
  const model = loadArchitecture(config, weights);
  weights.close();
  const answers = PROMPTS.map((prompt) => {
    const cache = model.createCache({ capacity: CONTEXT });
    const sequence = cache.sequence();
    const answer: number[] = [];
    let logits = model.forward(prompt, sequence, 'last');
    for (;;) {
      answer.push(logits.indexOf(logits.reduce((a, b) => Math.max(a, b))));
      if (answer.length === ANSWER) break;
      logits = model.forward(answer.slice(-1), sequence, 'last');
    }
    cache.dispose();
    return answer;
  });
  model.dispose();
  return answers;
}

/** Greedy, for that is what `request` asks for by default. */
async function answerOf(engine: Engine, prompt: readonly number[]): Promise<number[]> {
  const asked = request({ prompt, maxTokens: ANSWER, ignoreEos: true });
  return (await readAll(engine.submit(asked))).ids;
}

test.each(['mistral', 'gemma3', 'mixtral'])('%s', async (name) => {
  const folder = writeFolder(name);
  try {
    const expected = alone(folder);
    const engine = await Engine.start(folder, {
      maxSequences: 4,
      stepTokens: 64,
      budgetTokens: 1536,
    });
    try {
      const crowd = await Promise.all(PROMPTS.map((prompt) => answerOf(engine, prompt)));
      expect(crowd).toEqual(expected);
      // Once more, one after another, over what of their beginnings the cache still has.
      for (const [i, prompt] of PROMPTS.entries()) {
        expect(await answerOf(engine, prompt)).toEqual(expected[i]);
      }
      expect(engine.stats().cache.hitTokens).toBeGreaterThan(0);
    } finally {
      await engine.dispose();
    }
  } finally {
    rmSync(folder, { recursive: true });
  }
});
