/** Models through loadModel: the worker behind them, cancelling, damaged files. The goldens are in test/model. */
import { execFileSync } from 'node:child_process';
import { cpSync, mkdirSync, readFileSync, truncateSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import fc from 'fast-check';
import { GqaError } from '../../../lib/core/errors';
import {
  loadModel,
  type GenerateOptions,
  type Model,
  type Piece,
  type Prompt,
} from '../../../lib/model';
import { embeddedModel } from '../../support/package';
import { temporaryFolder } from '../format/build-files';

const path = temporaryFolder();

let model: Model;
beforeAll(async () => {
  model = await loadModel(embeddedModel);
});
afterAll(() => model.dispose());

async function tokensOf(of: Model, prompt: Prompt, options: GenerateOptions): Promise<number[]> {
  const tokens: number[] = [];
  for await (const { token } of of.generate(prompt, options)) tokens.push(token);
  return tokens;
}

async function countOf(run: AsyncIterable<Piece>): Promise<number> {
  const pieces: Piece[] = [];
  for await (const piece of run) pieces.push(piece);
  return pieces.length;
}

async function codeOf(run: () => unknown): Promise<string> {
  try {
    await run();
  } catch (error) {
    if (error instanceof GqaError) return error.code;
    throw error;
  }
  return 'none';
}

describe('generate', () => {
  it('tells about the run', async () => {
    const run = model.generate('Once upon a time', { maxTokens: 12, temperature: 1, seed: 3 });
    expect(run.stats).toMatchObject({ finishReason: null, tokens: 0 });
    for await (const piece of run) expect(typeof piece.text).toBe('string');
    const { stats } = run;
    expect(stats).toMatchObject({ promptTokens: 5, tokens: 12, finishReason: 'length', seed: 3 });
    expect(stats.promptSeconds).toBeGreaterThan(0);
    expect(stats.tokensPerSecond).toBeCloseTo(11 / stats.seconds, 6);
  });

  it('ends where the model ends its text, and does not yield that token', async () => {
    const run = model.generate('Once', { maxTokens: 480, temperature: 1, topP: 0.9, seed: 5 });
    const tokens: number[] = [];
    for await (const { token } of run) tokens.push(token);
    expect(run.stats.finishReason).toBe('end');
    expect(tokens).not.toContain(0);
    expect(tokens.length).toBeGreaterThan(20);
  });

  it('ends at a stop string, within a token or over several', async () => {
    const whole = await textOf('Once upon a time', {});
    const stop = whole.slice(20, 27);
    const run = model.generate('Once upon a time', { maxTokens: 40, stop });
    let text = '';
    for await (const piece of run) text += piece.text;
    expect(text).toBe(whole.slice(0, whole.indexOf(stop)));
    expect(run.stats.finishReason).toBe('stop');
    expect(await textOf('Once upon a time', { stop: ['never here', stop] })).toBe(text);
  });

  async function textOf(prompt: string, options: GenerateOptions): Promise<string> {
    let text = '';
    for await (const piece of model.generate(prompt, { maxTokens: 40, ...options }))
      text += piece.text;
    return text;
  }

  it('answers calls that run together one after the other, each its own', async () => {
    const prompts = ['Once', 'One day', '"Hello'];
    const options = { maxTokens: 20 };
    const alone: number[][] = [];
    for (const prompt of prompts) alone.push(await tokensOf(model, prompt, options));
    const together = await Promise.all(prompts.map((prompt) => tokensOf(model, prompt, options)));
    expect(together).toEqual(alone);
    const [logits, score, tokens] = await Promise.all([
      model.logits('Once'),
      model.score('Once upon a time'),
      tokensOf(model, 'Once', options),
    ]);
    expect([logits.length, score.tokens]).toEqual([2048, 4]);
    expect(tokens).toEqual(alone[0]);
  });

  it('lets others go on when a run is left in the middle or never read', async () => {
    const options = { maxTokens: 20 };
    const expected = await tokensOf(model, 'Once', options);
    const unread = model.generate('Once', options);
    const begun = model.generate('One day', { maxTokens: 400 });
    await begun.next();
    expect(await tokensOf(model, 'Once', options)).toEqual(expected);
    for await (const { token } of model.generate('Once', { maxTokens: 400 })) {
      if (token >= 0) break;
    }
    expect(await tokensOf(model, 'Once', options)).toEqual(expected);
    await begun.return();
    expect(begun.stats.finishReason).toBe('cancelled');
    expect(await begun.next()).toEqual({ done: true, value: undefined });
    await unread.return();
  });

  it('takes ids in arrays and typed arrays', async () => {
    const options = { maxTokens: 5 };
    const expected = await tokensOf(model, [1, 507], options);
    expect(await tokensOf(model, Int32Array.of(1, 507), options)).toEqual(expected);
    expect(await tokensOf(model, 'Once', options)).toEqual(expected);
    // No BOS is put before ids.
    expect(await model.logits([507])).not.toEqual(await model.logits('Once'));
  });

  it.each<[string, Prompt, object, string]>([
    ['no ids', [], {}, 'EMPTY_PROMPT'],
    ['an id outside the vocabulary', [2048], {}, 'OUT_OF_RANGE'],
    ['a negative id', [-1], {}, 'OUT_OF_RANGE'],
    ['half an id', [0.5], {}, 'INVALID_ARGUMENT'],
    ['more than the context', new Array<number>(513).fill(7), {}, 'CONTEXT_EXCEEDED'],
    ['no prompt', undefined as unknown as Prompt, {}, 'INVALID_ARGUMENT'],
    ['messages without a template', [{ role: 'user', content: 'x' }], {}, 'INVALID_ARGUMENT'],
    ['negative temperature', 'x', { temperature: -1 }, 'OUT_OF_RANGE'],
    ['temperature NaN', 'x', { temperature: NaN }, 'NON_FINITE'],
    ['text for temperature', 'x', { temperature: '1' }, 'INVALID_ARGUMENT'],
    ['top-k 1.5', 'x', { topK: 1.5 }, 'INVALID_ARGUMENT'],
    ['top-p 2', 'x', { topP: 2 }, 'OUT_OF_RANGE'],
    ['min-p -1', 'x', { minP: -1 }, 'OUT_OF_RANGE'],
    ['repetition penalty 0', 'x', { repetitionPenalty: 0 }, 'OUT_OF_RANGE'],
    ['negative maxTokens', 'x', { maxTokens: -1 }, 'OUT_OF_RANGE'],
    ['half a seed', 'x', { seed: 0.5 }, 'INVALID_ARGUMENT'],
    ['an empty stop string', 'x', { stop: '' }, 'INVALID_ARGUMENT'],
    ['a number as stop string', 'x', { stop: [3] }, 'INVALID_ARGUMENT'],
    ['something else as signal', 'x', { signal: {} }, 'INVALID_ARGUMENT'],
  ])('refuses %s', async (_, prompt, options, code) => {
    expect(await codeOf(() => model.generate(prompt, options).next())).toBe(code);
  });

  it('an error leaves the model usable', async () => {
    expect(await codeOf(() => model.score([1]))).toBe('INVALID_ARGUMENT');
    expect(await tokensOf(model, 'Once', { maxTokens: 2 })).toHaveLength(2);
  });
});

describe('AbortSignal', () => {
  it('ends a run with its reason, before, at the first and after some tokens', async () => {
    const reason = new Error('enough');
    await expect(model.generate('Once', { signal: AbortSignal.abort(reason) }).next()).rejects.toBe(
      reason,
    );

    const early = new AbortController();
    const first = model.generate('Once', { signal: early.signal }).next();
    early.abort(reason);
    await expect(first).rejects.toBe(reason);

    const late = new AbortController();
    const run = model.generate('Once', { signal: late.signal, maxTokens: 400 });
    const tokens: number[] = [];
    const loop = async () => {
      for await (const { token } of run) {
        tokens.push(token);
        if (tokens.length === 3) late.abort(reason);
      }
    };
    await expect(loop()).rejects.toBe(reason);
    expect(tokens).toHaveLength(3);
    expect(run.stats.finishReason).toBe('cancelled');
    expect(await tokensOf(model, 'Once', { maxTokens: 3 })).toEqual(
      await tokensOf(model, 'Once', { maxTokens: 3, signal: new AbortController().signal }),
    );
  });

  it('ends logits and score', async () => {
    const reason = new Error('enough');
    const signal = AbortSignal.abort(reason);
    await expect(model.logits('Once', { signal })).rejects.toBe(reason);
    const controller = new AbortController();
    const score = model.score(new Array<number>(500).fill(7), { signal: controller.signal });
    controller.abort(reason);
    await expect(score).rejects.toBe(reason);
    expect((await model.logits('Once')).length).toBe(2048);
  });

  it('keeps no listeners on a signal that outlives the runs', async () => {
    const { signal } = new AbortController();
    let listeners = 0;
    const add = signal.addEventListener.bind(signal);
    const remove = signal.removeEventListener.bind(signal);
    signal.addEventListener = (...args: Parameters<typeof add>) => void (listeners++, add(...args));
    signal.removeEventListener = (...args: Parameters<typeof remove>) =>
      void (listeners--, remove(...args));
    await tokensOf(model, 'Once', { maxTokens: 10, signal });
    expect(listeners).toBe(0);
  });
});

describe('dispose', () => {
  it('rejects what is running and what comes after, and may be called twice', async () => {
    const other = await loadModel(embeddedModel);
    const run = other.generate('Once', { maxTokens: 500 });
    await run.next();
    const pending = codeOf(() => other.score(new Array<number>(500).fill(7)));
    const rest = codeOf(() => countOf(run));
    await Promise.all([other.dispose(), other.dispose()]);
    expect(await pending).toBe('DISPOSED');
    expect(['DISPOSED', 'none']).toContain(await rest);
    expect(await codeOf(() => other.generate('x').next())).toBe('DISPOSED');
    expect(await codeOf(() => other.logits('x'))).toBe('DISPOSED');
  });

  it('is not needed for the process to end', () => {
    const script = `
      const { loadModel } = require(${JSON.stringify(require.resolve('../../../lib/model'))});
      loadModel(${JSON.stringify(embeddedModel)}).then(async (model) => {
        for await (const piece of model.generate('Once', { maxTokens: 3 })) console.log(piece.token);
        await model.generate('Once', { maxTokens: 100 }).next();
      });`;
    const out = execFileSync(process.execPath, ['-e', script], {
      encoding: 'utf8',
      timeout: 60_000,
    });
    expect(out.trim().split('\n')).toHaveLength(3);
  });
});

describe('the event loop', () => {
  it('turns while the worker computes', async () => {
    let turns = 0;
    let running = true;
    const turn = () => {
      turns++;
      if (running) setImmediate(turn);
    };
    turn();
    await model.score(new Array<number>(512).fill(7));
    running = false;
    expect(turns).toBeGreaterThan(10);
  });
});

describe('loadModel', () => {
  it.each<[string, unknown, object, string]>([
    ['a path that is nothing', '/nowhere/at/all', {}, 'INVALID_ARGUMENT'],
    ['no path', undefined, {}, 'INVALID_ARGUMENT'],
    ['another precision', embeddedModel, { precision: 'half' }, 'INVALID_ARGUMENT'],
    ['another cache dtype', embeddedModel, { kvCache: { dtype: 'i8' } }, 'INVALID_DTYPE'],
    ['window 0', embeddedModel, { kvCache: { window: 0 } }, 'OUT_OF_RANGE'],
    ['negative sink tokens', embeddedModel, { kvCache: { sinkTokens: -1 } }, 'OUT_OF_RANGE'],
    ['context 0', embeddedModel, { contextLength: 0 }, 'OUT_OF_RANGE'],
    ['more context than the model has', embeddedModel, { contextLength: 513 }, 'OUT_OF_RANGE'],
    ['options that are none', embeddedModel, 7 as unknown as object, 'INVALID_ARGUMENT'],
  ])('refuses %s', async (_, at, options, code) => {
    expect(await codeOf(() => loadModel(at as string, options))).toBe(code);
  });

  it('takes precision and a shorter context', async () => {
    const short = await loadModel(embeddedModel, { precision: 'fast', contextLength: 8 });
    expect(short.contextLength).toBe(8);
    const run = short.generate([1, 507], { maxTokens: Infinity });
    expect([await countOf(run), run.stats.finishReason]).toEqual([6, 'context']);
    await short.dispose();
  });

  let copies = 0;
  function copy(): string {
    const folder = path(`copy-${copies++}`);
    mkdirSync(folder);
    cpSync(embeddedModel, folder, { recursive: true });
    return folder;
  }

  async function tryModel(folder: string): Promise<string> {
    return codeOf(async () => {
      const damaged = await loadModel(folder);
      try {
        await tokensOf(damaged, [1, 507], { maxTokens: 2 });
      } finally {
        await damaged.dispose();
      }
    });
  }

  it.each<[string, (folder: string) => void]>([
    ['an empty folder', (folder) => writeFileSync(join(folder, 'config.json'), '')],
    ['half a config', (folder) => truncateSync(join(folder, 'config.json'), 100)],
    ['half the weights', (folder) => truncateSync(join(folder, 'model.safetensors'), 1_000_000)],
    ['no header', (folder) => truncateSync(join(folder, 'model.safetensors'), 4)],
    ['half a tokenizer', (folder) => truncateSync(join(folder, 'tokenizer.json'), 1000)],
    ['a tokenizer of null', (folder) => writeFileSync(join(folder, 'tokenizer.json'), 'null')],
    ['more layers than there are', (folder) => edit(folder, { num_hidden_layers: 7 })],
    ['a vocabulary of 2^30', (folder) => edit(folder, { vocab_size: 2 ** 30 })],
    ['another hidden size', (folder) => edit(folder, { hidden_size: 2 ** 30, head_dim: 32 })],
    ['a head that is not there', (folder) => edit(folder, { tie_word_embeddings: false })],
  ])('refuses %s', async (_, damage) => {
    const folder = copy();
    damage(folder);
    expect(await tryModel(folder)).toBe('INVALID_FILE');
  });

  function edit(folder: string, fields: object): void {
    const file = join(folder, 'config.json');
    const config = JSON.parse(readFileSync(file, 'utf8')) as object;
    writeFileSync(file, JSON.stringify({ ...config, ...fields }));
  }

  it('loads without tokenizer files, and takes ids only', async () => {
    const folder = path('bare');
    mkdirSync(folder);
    for (const file of ['config.json', 'model.safetensors'])
      cpSync(join(embeddedModel, file), join(folder, file));
    const bare = await loadModel(folder);
    expect(await tokensOf(bare, [1, 507], { maxTokens: 4 })).toEqual(
      await tokensOf(model, [1, 507], { maxTokens: 4 }),
    );
    for (const run of [
      () => bare.generate('Once').next(),
      () => bare.generate([{ role: 'user', content: 'x' }]).next(),
      () => bare.generate([1], { stop: 'x' }).next(),
      () => bare.logits('Once'),
      () => bare.tokenizer.encode('x'),
      () => bare.tokenizer.decode([1]),
    ]) {
      expect(await codeOf(run)).toBe('NO_TOKENIZER');
    }
    await bare.dispose();
  });

  it('never fails with anything but GqaError, whatever bytes of config and header change', async () => {
    const folder = copy();
    const files = ['config.json', 'model.safetensors'].map((name) => {
      const bytes = readFileSync(join(folder, name));
      return { name, bytes, head: name === 'config.json' ? bytes.length : 6000 };
    });
    await fc.assert(
      fc.asyncProperty(
        fc.constantFrom(...files),
        fc.nat(),
        fc.nat(255),
        async (file, at, value) => {
          const changed = Buffer.from(file.bytes);
          changed[at % file.head] = value;
          writeFileSync(join(folder, file.name), changed);
          await tryModel(folder);
          writeFileSync(join(folder, file.name), file.bytes);
        },
      ),
      { numRuns: 25 },
    );
  }, 120_000);
});
