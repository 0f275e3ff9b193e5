/** What a request can ask for, and what becomes of it when things go wrong. */
import { setTimeout as sleep } from 'node:timers/promises';
import type { Worker } from 'node:worker_threads';
import { Engine, loadModel, type EngineRequest, type GqaError, type Model } from '../../lib';
import { READ_AHEAD } from '../../lib/engine/protocol';
import { readAll, request, sampling, type Answer } from '../support/engine';
import { embeddedModel } from '../support/package';
import { Random } from '../support/random';

let engine: Engine;
let model: Model;
let story: number[];

beforeAll(async () => {
  engine = await Engine.start(embeddedModel);
  model = await loadModel(embeddedModel);
  story = engine.tokenizer.encode('Once upon a time, there was a little girl');
});
afterAll(async () => {
  await engine.dispose();
  await model.dispose();
});

function answer(changes: Partial<EngineRequest>, by = engine): Promise<Answer> {
  return readAll(by.submit(request({ prompt: story, ...changes })));
}

test('a stop string ends the answer before it, wherever tokens part it', async () => {
  const whole = (await answer({ maxTokens: 60 })).result.text;
  for (const length of [1, 3, 9, 20]) {
    const stop = whole.slice(30, 30 + length);
    const { result, texts } = await answer({ maxTokens: 60, stop: ['never', stop] });
    expect(result.text).toBe(whole.slice(0, whole.indexOf(stop)));
    expect(texts.join('')).toBe(result.text);
    expect([result.finishReason, result.stopString]).toEqual(['stop', stop]);
  }
  const none = await answer({ maxTokens: 60, stop: ['never'] });
  expect([none.result.text, none.result.finishReason]).toEqual([whole, 'length']);
});

test('a stop string longer than what a run may be ahead does not hold it up', async () => {
  const { result } = await answer({ maxTokens: 200, stop: ['x'.repeat(5000)], ignoreEos: true });
  expect(result.usage.completionTokens).toBe(200);
});

test("the model's end of text ends an answer, unless it is to be ignored", async () => {
  const [end] = engine.model.config.eosTokenIds;
  const ending = sampling({ logitBias: { [end]: 1000 } });
  const { ids, result } = await answer({ sampling: ending });
  expect([ids, result.finishReason, result.stopString]).toEqual([[], 'stop', null]);
  const ignored = await answer({ sampling: ending, maxTokens: 3, ignoreEos: true });
  expect(ignored.ids).toEqual([end, end, end]);
  const more = await answer({ maxTokens: Infinity, ignoreEos: true });
  expect(more.result.finishReason).toBe('length');
  expect(more.ids.length).toBe(engine.model.contextLength - story.length);
  expect((await answer({ maxTokens: 0 })).result).toMatchObject({
    text: '',
    finishReason: 'length',
  });
});

test('log probabilities are those of the logits, before sampling options', async () => {
  const { tokens } = await answer({
    maxTokens: 5,
    logprobs: 4,
    sampling: sampling({ temperature: 2, seed: 3, presencePenalty: 1 }),
  });
  const ids = [...story];
  for (const { id, logprob, top } of tokens) {
    const logits = await model.logits(ids);
    const max = logits.reduce((a, b) => Math.max(a, b));
    const total = max + Math.log(logits.reduce((sum, x) => sum + Math.exp(x - max), 0));
    const order = [...logits.keys()].sort((a, b) => logits[b] - logits[a]).slice(0, 4);
    expect(logprob).toBeCloseTo(logits[id] - total, 4);
    expect(top.map((one) => one.id)).toEqual(order);
    top.forEach((one) => expect(one.logprob).toBeCloseTo(logits[one.id] - total, 4));
    ids.push(id);
  }
});

test('bias and penalties choose other tokens', async () => {
  const plain = await answer({ maxTokens: 30 });
  const banned = plain.ids[3];
  const without = await answer({
    maxTokens: 30,
    sampling: sampling({ logitBias: { [banned]: -1000 } }),
  });
  expect(without.ids).not.toContain(banned);
  const forced = await answer({ maxTokens: 5, sampling: sampling({ logitBias: { 77: 1000 } }) });
  expect(forced.ids).toEqual([77, 77, 77, 77, 77]);
  const penalised = sampling({ logitBias: { 77: 1000 }, presencePenalty: 2000 });
  expect(new Set((await answer({ maxTokens: 5, sampling: penalised })).ids).size).toBeGreaterThan(
    1,
  );
  const counted = sampling({ logitBias: { 77: 1000 }, frequencyPenalty: 400 });
  const { ids } = await answer({ maxTokens: 5, sampling: counted });
  expect(ids.slice(0, 2)).toEqual([77, 77]);
  expect(ids.slice(3)).not.toEqual([77, 77]);
});

test('no character is cut: bytes of one are given out together', async () => {
  const bytes = [...Buffer.from('é€😀')];
  const tokenOf = (byte: number): number => {
    for (let id = 0; id < engine.model.config.vocabSize; id++) {
      const own = engine.tokenizer.tokenBytes(id);
      if (own.length === 1 && own[0] === byte) return id;
    }
    throw new Error(`no token of byte ${byte}`);
  };
  const ids = bytes.map(tokenOf);
  // The last byte of a character brings it whole, one before it nothing.
  const lastOf = new Map([
    [1, 'é'],
    [4, '€'],
    [8, '😀'],
  ]);
  for (const [i, id] of ids.entries()) {
    const prompt = [...story, ...ids.slice(0, i)];
    const forced = sampling({ logitBias: { [id]: 1000 } });
    const { texts, tokens } = await answer({ prompt, maxTokens: 1, sampling: forced });
    expect(texts.join('')).toBe(lastOf.get(i) ?? '');
    expect([...tokens[0].bytes]).toEqual([bytes[i]]);
  }
});

test('a reader that lags pauses its own run, which goes on when it reads', async () => {
  const slow = engine.submit(request({ prompt: story, maxTokens: 300, ignoreEos: true }));
  const reader = slow[Symbol.asyncIterator]();
  const first = await reader.next();
  const others = await Promise.all([answer({ maxTokens: 100 }), answer({ maxTokens: 100 })]);
  expect(others[0].ids).toEqual(others[1].ids);
  await sleep(50);
  const generated = engine.stats().generatedTokens;
  await sleep(50);
  expect(engine.stats().generatedTokens).toBe(generated);
  const second = await reader.next();
  expect(second.value!.tokens.length).toBeLessThanOrEqual(READ_AHEAD);
  const ids = [...first.value!.tokens, ...second.value!.tokens].map(({ id }) => id);
  for (let next = await reader.next(); next.done !== true; next = await reader.next()) {
    ids.push(...next.value.tokens.map(({ id }) => id));
  }
  expect(ids).toEqual((await answer({ maxTokens: 300, ignoreEos: true })).ids);
});

test('an abort ends a run with its reason, waiting, running or before it began', async () => {
  const one = await Engine.start(embeddedModel, { maxSequences: 1 });
  const controllers = [0, 1].map(() => new AbortController());
  const runs = controllers.map(({ signal }) =>
    one.submit(request({ prompt: story, maxTokens: 400, ignoreEos: true, signal })),
  );
  const reading = runs.map((run) => readAll(run));
  const reason = new Error('enough');
  controllers[1].abort(reason);
  await expect(reading[1]).rejects.toBe(reason);
  await expect(runs[1].result).rejects.toBe(reason);
  controllers[0].abort(null);
  await expect(reading[0]).rejects.toBe(null);
  expect(() => one.submit(request({ signal: AbortSignal.abort(reason) }))).toThrow(reason);
  expect((await answer({ maxTokens: 5 }, one)).ids.length).toBe(5);
  await one.dispose();
});

test('random requests, some left or aborted: every other answer is what it is alone', async () => {
  const small = await Engine.start(embeddedModel, {
    ...{ budgetTokens: 1024, contextLength: 256, maxSequences: 6, stepTokens: 64 },
    speculation: { lookup: true },
  });
  const numbers = new Random(11);
  const random = (below: number): number => numbers.int(0, below - 1);
  const prompts = Array.from({ length: 10 }, () =>
    Array.from({ length: 1 + random(90) }, () => 3 + random(2000)),
  );
  const expected = new Map<string, number[]>();
  for (const [i, prompt] of prompts.entries()) {
    for (const seed of [0, 1]) {
      const { ids } = await answer({ prompt, maxTokens: 24, sampling: kindOf(seed) });
      expected.set(`${i} ${seed}`, ids);
    }
  }
  let compared = 0;
  const client = async (): Promise<void> => {
    for (let turn = 0; turn < 30; turn++) {
      const [which, seed, fate] = [random(10), random(2), random(5)];
      const controller = new AbortController();
      const run = small.submit(
        request({
          prompt: prompts[which],
          maxTokens: 1 + random(24),
          sampling: kindOf(seed),
          priority: random(2),
          user: `user ${random(3)}`,
          signal: controller.signal,
        }),
      );
      if (fate === 0) setTimeout(() => controller.abort(), random(20));
      const ids: number[] = [];
      try {
        for await (const { tokens } of run) {
          ids.push(...tokens.map(({ id }) => id));
          if (fate === 1 && ids.length > 3) break;
        }
        if (fate > 1) await run.result;
      } catch (error) {
        if (!controller.signal.aborted) throw error;
      }
      const alone = expected.get(`${which} ${seed}`)!;
      expect(ids).toEqual(alone.slice(0, ids.length));
      compared++;
    }
  };
  await Promise.all(Array.from({ length: 10 }, client));
  expect(compared).toBe(300);
  await small.drain();
  expect(small.stats()).toMatchObject({ running: 0, waiting: 0 });
  await small.dispose();
});

function kindOf(seed: number): EngineRequest['sampling'] {
  return seed === 0 ? sampling() : sampling({ temperature: 1, topK: 50, seed });
}

test('drain lets what runs finish and takes no more; dispose ends what runs', async () => {
  const one = await Engine.start(embeddedModel);
  const running = answer({ maxTokens: 50 }, one);
  const drained = one.drain();
  expect(() => one.submit(request())).toThrow('one that drains');
  await drained;
  await running;
  const other = await Engine.start(embeddedModel);
  const busy = Promise.allSettled([1, 2, 3].map(() => answer({ maxTokens: 400 }, other)));
  await other.dispose();
  await other.dispose();
  for (const outcome of await busy) {
    expect(outcome).toMatchObject({ status: 'rejected', reason: { code: 'DISPOSED' } });
  }
  expect(other.stats().live).toBe(false);
  expect(() => other.submit(request())).toThrow('disposed');
  await one.dispose();
});

test('a worker that dies fails what runs with a typed error, and the engine says so', async () => {
  const one = await Engine.start(embeddedModel);
  const running = answer({ maxTokens: 400, ignoreEos: true }, one);
  const { client } = one as unknown as { client: { worker: Worker } };
  await client.worker.terminate();
  const error = await running.catch((thrown: unknown) => thrown);
  expect((error as GqaError).code).toBe('INTERNAL');
  expect(one.stats().live).toBe(false);
  expect(() => one.submit(request())).toThrow('thread ended');
  await one.dispose();
});

test('a prompt that was there before is found in the cache', async () => {
  const prompt = Array.from({ length: 200 }, (_, i) => 3 + ((i * 71) % 2000));
  const first = await answer({ prompt, maxTokens: 4 });
  const second = await answer({ prompt: [...prompt, 9], maxTokens: 4 });
  expect([first, second].map(({ result }) => result.usage.cachedTokens)).toEqual([0, 192]);
  const { hitTokens, lookupTokens } = engine.stats().cache;
  expect(hitTokens).toBeGreaterThanOrEqual(192);
  expect(lookupTokens).toBeGreaterThan(hitTokens);
});
