/** The planner against published counts, closed forms, and the caches that it plans. */
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { KvCache, plan, PRESETS, Tensor } from '../../../lib';
import type { CacheDType, PlanOptions } from '../../../lib';
import { embeddedModel } from '../../../lib/model/embedded';
import { cacheExits } from '../../../lib/toolkit/plan/capacity';
import { cacheOptions, kvBytes } from '../../../lib/toolkit/plan/kv-bytes';
import { buyBack, parametersRead } from '../../../lib/toolkit/plan/parameters';
import { preset } from '../../../lib/toolkit/plan/presets';
import { writeGguf } from '../../support/gguf';
import { ggufMetadata, randomTensors } from '../../support/tiny-llama';

const KIB = 1024;

/** Query heads, KV heads, head dim, layers, KiB a token of f16 cache, parameters as published (safetensors headers). */
const MODELS = [
  ['llama-2-7b', 32, 32, 128, 32, 512, 6_738_415_616],
  ['llama-2-70b', 64, 8, 128, 80, 320, 68_976_648_192],
  ['llama-3.2-1b', 32, 8, 64, 16, 32, 1_235_814_400],
  ['llama-3.1-8b', 32, 8, 128, 32, 128, 8_030_261_248],
  ['mistral-7b', 32, 8, 128, 32, 128, 7_241_732_096],
  ['mixtral-8x7b', 32, 8, 128, 32, 128, 46_702_792_704],
  ['qwen2.5-0.5b', 14, 2, 64, 24, 12, 494_032_768],
  ['qwen3-0.6b', 16, 8, 128, 28, 112, 596_049_920],
  ['gemma-2-2b', 8, 4, 256, 26, 104, 2_614_341_888],
  ['gemma-3-1b', 4, 1, 256, 26, 26, 999_885_952],
  ['smollm2-135m', 9, 3, 64, 30, 22.5, 134_515_008],
  ['smollm2-360m', 15, 5, 64, 32, 40, 361_821_120],
  ['tinyllama-1.1b', 32, 4, 64, 22, 22, 1_100_048_384],
  ['falcon-7b', 71, 1, 64, 32, 8, 6_921_720_704],
  ['starcoder', 48, 1, 128, 40, 20, 15_517_456_384],
  ['chatglm2-6b', 32, 2, 128, 28, 28, 6_243_584_000],
  ['phi-3-mini', 32, 32, 96, 32, 384, 3_821_079_552],
  ['gpt-oss-20b', 64, 8, 64, 24, 48, 20_914_757_184],
] as const;

test.each(MODELS)('%s: heads, bytes a token, parameters', (name, ...expected) => {
  const { model, parameters, loads } = plan({ model: name, dtype: 'f16', memory: 1e12 });
  const [{ textbookBytesPerToken, bytesPerToken }] = loads;
  const { heads, layerKvHeads, headDim, layers } = model;
  const perToken = textbookBytesPerToken / KIB;
  expect(bytesPerToken).toBe(textbookBytesPerToken);
  expect([heads, layerKvHeads[0], headDim, layers, perToken, parameters.total]).toEqual(expected);
});

test('every preset is in the table', () => {
  expect(PRESETS).toEqual(MODELS.map(([name]) => name));
});

test('closed forms: 70B at 4,096 tokens, 7B a token', () => {
  const seventy = plan({ model: 'llama-2-70b', context: 4096, dtype: 'f16', memory: 1e12 });
  expect(seventy.loads[0].sequenceBytes).toBe(1_342_177_280);
  const seven = plan({ model: 'llama-2-7b', dtype: 'bf16', memory: 1e12 });
  expect(seven.loads[0].bytesPerToken).toBe(524_288);
});

test('mixtures: what is active, and what a step reads', () => {
  // Mistral counts embeddings in, OpenAI leaves the input embedding out.
  expect(plan({ model: 'mixtral-8x7b' }).parameters.active / 1e9).toBeCloseTo(12.9, 1);
  expect(parametersRead(preset('gpt-oss-20b'), 1) / 1e9).toBeCloseTo(3.61, 2);
  // One expert more for the second token, unless it takes the same: 8 (1 - (6/8)^2) = 3.5.
  const mixtral = preset('mixtral-8x7b');
  const expert = 3 * 4096 * 14_336 * 32;
  const [one, two] = [1, 2].map((batch) => parametersRead(mixtral, batch));
  expect(two - one - 4096).toBeCloseTo(1.5 * expert, -3);
  // Many tokens meet every expert, and a row of the embedding each.
  const all = 46_702_792_704 - 131_072_000 + 1e4 * 4096;
  expect(parametersRead(mixtral, 1e4)).toBeCloseTo(all, -3);
});

describe('windows', () => {
  const windows = (model: string) => plan({ model, memory: 1e12 }).model.layerWindows;

  test('of each architecture', () => {
    expect(new Set(windows('mistral-7b'))).toEqual(new Set([4096]));
    expect(windows('gemma-2-2b').slice(0, 4)).toEqual([4096, Infinity, 4096, Infinity]);
    expect(windows('gpt-oss-20b').slice(0, 3)).toEqual([128, Infinity, 128]);
    const gemma3 = windows('gemma-3-1b');
    expect(gemma3.slice(0, 7)).toEqual([512, 512, 512, 512, 512, Infinity, 512]);
    expect(gemma3.filter((window) => window === Infinity)).toHaveLength(4);
    expect(new Set(windows('mixtral-8x7b'))).toEqual(new Set([Infinity]));
  });

  test('bound what a long sequence holds and reads', () => {
    const at = (context: number) =>
      plan({ model: 'mistral-7b', context, dtype: 'f16', memory: 1e12 }).loads[0];
    expect(at(4096).textbookSequenceBytes).toBe(4096 * 128 * KIB);
    expect(at(32_768).textbookSequenceBytes).toBe(4096 * 128 * KIB);
    expect(at(32_768).readBytes).toBe(4096 * 128 * KIB);
    // A ring holds the window, 256 tokens of slack and the block that is being overwritten.
    expect(at(32_768).sequenceBytes).toBe((4096 + 256 + 64) * 128 * KIB);
    expect(at(1_000_000).sequenceBytes).toBe(at(32_768).sequenceBytes);
  });
});

describe('plan and cache agree', () => {
  const DTYPES: PlanOptions['dtype'] = ['f32', 'f16', 'bf16', 'q8', 'q4', { k: 'q8', v: 'q4' }];
  const cases = [
    { heads: 6, kv: [2, 2, 1], dim: 64, windows: [Infinity, 64, 128] },
    { heads: 9, kv: [3], dim: 100, windows: [Infinity] },
    { heads: 4, kv: [4, 1], dim: 33, windows: [70, 70] },
  ];

  test.each(cases)('$kv KV heads of $dim, windows $windows', ({ heads, kv, dim, windows }) => {
    const shape = {
      ...preset('llama-2-7b'),
      ...{ heads, headDim: dim, layers: kv.length, layerKvHeads: kv, layerWindows: windows },
    };
    for (const dtype of DTYPES as (CacheDType | { k: CacheDType; v: CacheDType })[]) {
      const both = typeof dtype === 'string' ? { k: dtype, v: dtype } : dtype;
      for (const load of [
        { context: 1, batch: 1, sharedPrefix: 0 },
        { context: 700, batch: 3, sharedPrefix: 100 },
      ]) {
        const planned = kvBytes(shape, both, load);
        const cache = new KvCache(cacheOptions(shape, both, load));
        expect(planned.batchBytes).toBe(cache.bytes);
        expect(planned.bytesPerToken).toBe(cache.bytesPerToken);
        cache.dispose();
      }
    }
  });

  test('a shared prefix is held once: as a cache of forks counts it', () => {
    const shape = { ...preset('smollm2-135m'), layers: 2, layerKvHeads: [3, 3] };
    const planned = kvBytes(
      { ...shape, layerWindows: [Infinity, Infinity] },
      { k: 'f16', v: 'f16' },
      {
        ...{ context: 256, batch: 3, sharedPrefix: 150 },
      },
    );
    const cache = new KvCache({
      ...{ layers: 2, kvHeads: 3, headDim: 64, capacity: 256, dtype: 'f16', sequences: 3 },
      prefixTokens: 150,
    });
    const rows = (tokens: number) => Tensor.zeros([tokens, 3, 64], 'f16');
    const grow = (sequence: ReturnType<KvCache['sequence']>, tokens: number) => {
      for (const layer of [0, 1]) sequence.append(layer, rows(tokens), rows(tokens));
    };
    const first = cache.sequence();
    grow(first, 150);
    const forks = [first.fork(), first.fork()];
    for (const sequence of [first, ...forks]) grow(sequence, 106);
    expect(planned.heldBytes).toBe(cache.usedBytes);
    // Two blocks of 64 are whole, and read once.
    expect(planned.readBytes).toBe((256 + 2 * (256 - 128)) * planned.bytesPerToken);
    expect(planned.textbookBatchBytes).toBe((256 + 2 * (256 - 150)) * planned.bytesPerToken);
    cache.dispose();
  });
});

test('quantised caches: scales, minimums and the newest block in f16', () => {
  const bits = (dtype: PlanOptions['dtype']) => {
    const [load] = plan({ model: 'llama-3.1-8b', dtype, context: 4096, memory: 1e12 }).loads;
    return (8 * load.bytesPerToken) / (2 * 32 * 8 * 128);
  };
  expect([bits('q8'), bits('q4'), bits({ k: 'q8', v: 'q4' })]).toEqual([8.5, 4.75, 6.75]);
  const [load] = plan({ model: 'llama-3.1-8b', dtype: 'q8', context: 4100, memory: 1e12 }).loads;
  const perToken = 2 * 32 * 8 * 128;
  expect(load.readBytes).toBe(perToken * (4096 * (8.5 / 8) + 4 * 2));
  expect(load.textbookBytesPerToken).toBe(perToken);
});

describe('what fits', () => {
  const options = { model: 'llama-3.1-8b', dtype: 'f16', context: 4096 } as const;
  const weights = 8_030_261_248 * 2;
  const sequence = 4096 * 128 * KIB;

  test('sequences at the context, and the context at the batch', () => {
    const [load] = plan({ ...options, memory: weights + 10 * sequence }).loads;
    expect([load.fits, load.sequences, load.longestContext]).toEqual([true, 10, 40_960]);
    const [eight] = plan({ ...options, batch: 8, memory: weights + 10 * sequence }).loads;
    expect([eight.fits, eight.longestContext]).toEqual([true, 5120]);
    const [many] = plan({ ...options, batch: 11, memory: weights + 11 * sequence - 1 }).loads;
    expect([many.fits, many.sequences, many.longestContext]).toEqual([false, 10, 4032]);
  });

  test('the longest context is the last whose cache fits, rings and tails counted', () => {
    for (const model of ['gemma-3-1b', 'mistral-7b']) {
      const shape = preset(model);
      const dtype = { k: 'q8', v: 'q4' } as const;
      const memory = 2 * plan({ model }).parameters.total + 600 * 2 ** 20;
      const [{ longestContext }] = plan({ model, dtype, batch: 2, memory, context: 64 }).loads;
      const bytes = (context: number) =>
        kvBytes(shape, dtype, { context, batch: 2, sharedPrefix: 0 }).batchBytes;
      // Windows in every layer: any context fits.
      if (longestContext === 2 ** 31 - 1) expect(model).toBe('mistral-7b');
      else expect(bytes(longestContext + 1)).toBeGreaterThan(600 * 2 ** 20);
      expect(bytes(longestContext)).toBeLessThanOrEqual(600 * 2 ** 20);
    }
  });

  test('nothing where the weights alone do not fit', () => {
    const [load] = plan({ ...options, memory: weights - 1 }).loads;
    expect([load.fits, load.sequences, load.longestContext]).toEqual([false, 0, 0]);
  });

  test('smaller weights leave room', () => {
    const { weights: planned, loads } = plan({ ...options, weights: 'q4_0', memory: weights });
    expect([planned.bitsPerParameter, planned.bytes]).toEqual([4.5, (8_030_261_248 * 4.5) / 8]);
    expect(loads[0].sequences).toBe(Math.floor((weights - planned.bytes) / sequence));
  });

  test('without a memory: that of this machine', () => {
    const { machine } = plan(options);
    expect(machine.memory).toBeGreaterThan(2 ** 26);
    expect(machine.memory).toBeLessThan(2 ** 50);
  });
});

test('the floor of a step is all it reads over the bandwidth', () => {
  const options = { model: 'llama-2-7b', dtype: 'f16', context: 2048, memory: 1e12 } as const;
  const { loads, weights } = plan({ ...options, batch: 4, bandwidth: 50e9 });
  const read = (6_738_415_616 - 131_072_000 + 4 * 4096) * 2;
  expect(weights.read).toBe(read);
  expect(loads[0].floorSeconds).toBeCloseTo((read + 4 * 2048 * 524_288) / 50e9, 12);
  expect(loads[0].tokensPerSecond).toBeCloseTo(4 / loads[0].floorSeconds!, 9);
  expect(plan(options).loads[0].floorSeconds).toBeNull();
});

describe('groups', () => {
  const { groups } = plan({ model: 'llama-2-7b', dtype: 'f16', memory: 1e12, bandwidth: 1e10 });

  test('a row for every divisor, from MHA to MQA', () => {
    expect(groups.map(({ kvHeads }) => kvHeads)).toEqual([32, 16, 8, 4, 2, 1]);
    expect(groups.map(({ kind }) => kind)).toEqual(['MHA', 'GQA', 'GQA', 'GQA', 'GQA', 'MQA']);
    expect(groups.filter(({ current }) => current).map(({ kvHeads }) => kvHeads)).toEqual([32]);
    expect(groups[2].bytesPerToken).toBe(groups[0].bytesPerToken / 4);
    expect(groups[0].parameters - groups[2].parameters).toBe(32 * 2 * 4096 * 24 * 128);
    expect(groups[5].floorSeconds!).toBeLessThan(groups[0].floorSeconds!);
    const falcon = plan({ model: 'falcon-7b', memory: 1e12 }).groups;
    expect(falcon.map(({ kvHeads, current }) => [kvHeads, current])).toEqual([
      [71, false],
      [1, true],
    ]);
  });

  test('what the saved parameters buy back: ChatGLM2 and Falcon', () => {
    // 11,008 and two KV heads instead of 32: 2 * 4096 * 30 * 128 / (3 * 4096) = 2560 more; it has 13,696.
    const llama = buyBack(preset('llama-2-7b'), 2);
    expect([llama.savedPerLayer, llama.ffnWidth]).toEqual([31_457_280, 13_568]);
    // 10 x^2 + 128 x = 12 * 4096^2: 71 heads of 64 are the first to reach it, and 4544 its hidden size.
    const ffn = { gated: false, width: 4 * 4096, experts: null };
    const mha = { ...preset('falcon-7b'), hiddenSize: 4096, heads: 64, ffn };
    const { hiddenSize, heads } = buyBack(mha, 1);
    expect(10 * hiddenSize ** 2 + 128 * hiddenSize).toBeCloseTo(12 * 4096 ** 2, 2);
    expect([heads, heads * 64]).toEqual([71, preset('falcon-7b').hiddenSize]);
    expect(buyBack(mha, 64)).toMatchObject({ savedPerLayer: 0, ffnWidth: 16_384, heads: 64 });
  });

  test('damage comes from reports; what was not measured has none', () => {
    const report = (kvHeads: number, after: number) => ({
      method: 'aligned',
      crossEntropy: { before: 2, after },
      kl: 0.5,
      bytesPerToken: { before: 524_288, after: (524_288 * kvHeads) / 32 },
      layers: [],
    });
    const planned = plan({ model: 'llama-2-7b', reports: [report(8, 2.5), report(12.5, 2.2)] });
    const measured = planned.groups.filter(({ damage }) => damage.length > 0);
    expect(measured.map(({ kvHeads, damage }) => [kvHeads, damage[0].crossEntropy.after])).toEqual([
      [8, 2.5],
    ]);
    expect(planned.damage.map(({ kvHeads, kl }) => [kvHeads, kl])).toEqual([
      [8, 0.5],
      [12.5, 0.5],
    ]);
  });
});

test('where a sequence, and a layer, leave the caches', () => {
  const levels = [
    { level: 1, size: 48 * KIB, count: 1, bytes: 48 * KIB },
    { level: 2, size: 1024 * KIB, count: 2, bytes: 2048 * KIB },
    { level: 3, size: 32 * KIB * KIB, count: 1, bytes: 32 * KIB * KIB },
  ];
  const f16 = { k: 'f16', v: 'f16' } as const;
  // 128 KiB a token, 4 KiB of them a layer's.
  expect(cacheExits(preset('llama-3.1-8b'), f16, levels)).toEqual([
    { level: 2, bytes: 2 ** 21, sequence: 17, layer: 513 },
    { level: 3, bytes: 2 ** 25, sequence: 257, layer: 8193 },
  ]);
  // Windows keep a layer of Mistral's within 16 MiB, all of them not.
  expect(cacheExits(preset('mistral-7b'), f16, levels)[1]).toMatchObject({
    ...{ sequence: 257, layer: Infinity },
  });
});

describe('models', () => {
  let folder: string;
  beforeAll(() => (folder = mkdtempSync(join(tmpdir(), 'gqa-plan-'))));
  afterAll(() => rmSync(folder, { recursive: true }));

  test('a folder: its weights as they are stored', () => {
    const { source, weights, parameters, model } = plan({ model: embeddedModel.path });
    expect([source, weights.dtype, weights.bitsPerParameter]).toEqual(['folder', 'file', 16]);
    expect(weights.bytes).toBe(2 * parameters.total);
    expect([model.heads, model.layerKvHeads[0], model.headDim]).toEqual([6, 2, 32]);
    const same = plan({ model: join(embeddedModel.path, 'config.json') });
    expect([same.source, same.weights.dtype]).toEqual(['config', 'bf16']);
    expect(same.model).toEqual(model);
  });

  test('a GGUF file, with KV heads of each layer', () => {
    const path = join(folder, 'tiny.gguf');
    const config = {
      ...{ vocab: 32, hidden: 16, intermediate: 24, layers: 2, heads: 4, kvHeads: 4, headDim: 4 },
      ...{ layerKvHeads: [4, 2], eps: 1e-5, theta: 1e4, ropePairs: 'neighbours' as const },
    };
    const tensors = randomTensors(config, 'F32', 1);
    writeFileSync(path, writeGguf({ metadata: ggufMetadata(config), tensors }));
    const { source, model, weights, parameters } = plan({ model: path, context: 64 });
    expect([source, model.layerKvHeads]).toEqual(['gguf', [4, 2]]);
    expect([weights.dtype, weights.bytes]).toEqual(['file', 4 * parameters.total]);
  });

  test('a config.json with KV heads of each layer, and one that writes layer types', () => {
    mkdirSync(join(folder, 'mine'));
    const path = join(folder, 'mine', 'config.json');
    const config = {
      ...{ model_type: 'llama', hidden_size: 8, num_hidden_layers: 2, num_attention_heads: 4 },
      ...{ intermediate_size: 16, vocab_size: 32, num_key_value_heads: 4, gqa_kv_heads: [4, 1] },
    };
    writeFileSync(path, JSON.stringify(config));
    expect(plan({ model: path }).model).toMatchObject({ name: 'mine', layerKvHeads: [4, 1] });
    const layered = {
      ...{ ...config, model_type: 'gpt_oss', head_dim: 2, sliding_window: 5 },
      ...{ gqa_kv_heads: undefined, layer_types: ['full_attention', 'sliding_attention'] },
    };
    expect(plan({ model: layered }).model.layerWindows).toEqual([Infinity, 5]);
  });

  test('a config.json that is broken', () => {
    const path = join(folder, 'broken.json');
    writeFileSync(path, '{ "model_type": "llama", ');
    expect(() => plan({ model: path })).toThrow(expect.objectContaining({ code: 'INVALID_FILE' }));
  });

  test.each([
    ['lama-2', /llama-2-7b or llama-2-70b/],
    ['Mistral7b', /mistral-7b or mixtral-8x7b/],
    ['falcon', /falcon-7b\?/],
    ['xyzzy', /one of the presets llama-2-7b, .*gpt-oss-20b/],
  ])('%s is no preset', (model, message) => {
    expect(() => plan({ model })).toThrow(message);
  });

  test('as if it had other KV heads', () => {
    const { model, loads } = plan({ model: 'llama-2-7b', kvHeads: 8, dtype: 'f16', memory: 1e12 });
    expect([model.layerKvHeads[31], loads[0].bytesPerToken]).toEqual([8, 131_072]);
  });
});
