/** A tiny random Llama against a float64 forward pass: chunks, windows, biases, dtypes, RoPE scaling, errors. */
import { backend, GqaError, KvCache } from '../../../lib';
import { loadArchitecture } from '../../../lib/model/arch';
import type { LanguageModel, ModelConfig, WeightSource } from '../../../lib/model/types';
import { expectClose } from '../../support/compare';
import type { FloatName } from '../../support/numbers';
import { Random } from '../../support/random';
import { normals, toBits } from '../../support/tensors';
import { naiveLlama, type NaiveLlama } from './naive';

/** A few layers of f32 arithmetic on values of about 1. */
const TOLERANCE = 2e-5;

const CONFIG: ModelConfig = {
  architecture: 'llama',
  vocabSize: 37,
  hiddenSize: 20,
  intermediateSize: 33,
  layers: 2,
  heads: 6,
  kvHeads: 2,
  layerKvHeads: [2, 2],
  headDim: 8,
  rmsNormEps: 1e-5,
  rope: { theta: 1000, scaling: null },
  contextLength: 1024,
  tiedEmbeddings: false,
  attentionBias: false,
  mlpBias: false,
  bosTokenId: null,
  eosTokenIds: [],
};

type Values = Map<string, { shape: number[]; values: number[] }>;

/** Weights by their Hugging Face names; biases and the output head only where the config has them. */
function randomWeights(c: ModelConfig, dtype: FloatName, seed = 1): Values {
  const random = new Random(seed);
  const values: Values = new Map();
  const add = (name: string, shape: number[], scale: number): void => {
    const count = shape.reduce((a, b) => a * b, 1);
    values.set(name, { shape, values: normals(random, count, dtype, scale) });
  };
  const linear = (name: string, out: number, input: number, bias: boolean): void => {
    add(`${name}.weight`, [out, input], 1 / Math.sqrt(input));
    if (bias) add(`${name}.bias`, [out], 0.5);
  };
  add('model.embed_tokens.weight', [c.vocabSize, c.hiddenSize], 1);
  for (let i = 0; i < c.layers; i++) {
    const layer = `model.layers.${i}`;
    add(`${layer}.input_layernorm.weight`, [c.hiddenSize], 1);
    linear(`${layer}.self_attn.q_proj`, c.heads * c.headDim, c.hiddenSize, c.attentionBias);
    const keys = c.layerKvHeads[i] * c.headDim;
    linear(`${layer}.self_attn.k_proj`, keys, c.hiddenSize, c.attentionBias);
    linear(`${layer}.self_attn.v_proj`, keys, c.hiddenSize, c.attentionBias);
    linear(`${layer}.self_attn.o_proj`, c.hiddenSize, c.heads * c.headDim, c.attentionBias);
    add(`${layer}.post_attention_layernorm.weight`, [c.hiddenSize], 1);
    linear(`${layer}.mlp.gate_proj`, c.intermediateSize, c.hiddenSize, c.mlpBias);
    linear(`${layer}.mlp.up_proj`, c.intermediateSize, c.hiddenSize, c.mlpBias);
    linear(`${layer}.mlp.down_proj`, c.hiddenSize, c.intermediateSize, c.mlpBias);
  }
  add('model.norm.weight', [c.hiddenSize], 1);
  if (!c.tiedEmbeddings) add('lm_head.weight', [c.vocabSize, c.hiddenSize], 1);
  return values;
}

function sourceOf(weights: Values, dtype: FloatName): WeightSource & { loaded: Set<string> } {
  const loaded = new Set<string>();
  const source: ReturnType<typeof sourceOf> = {
    loaded,
    has: (name) => weights.has(name),
    load(name, shape) {
      const tensor = weights.get(name);
      if (tensor === undefined || String(tensor.shape) !== String(shape)) {
        throw new GqaError('INVALID_FILE', `no ${name} of shape ${shape}`);
      }
      loaded.add(name);
      return { shape: tensor.shape, dtype, data: toBits(tensor.values, dtype) };
    },
    loadMatrix: (name, shape) => source.load(name, shape),
    close: () => undefined,
  };
  return source;
}

function naiveOf(c: ModelConfig, weights: Values): NaiveLlama {
  const at = (name: string): number[] => weights.get(name)!.values;
  const bias = (name: string): number[] | null => weights.get(name)?.values ?? null;
  return {
    hidden: c.hiddenSize,
    eps: c.rmsNormEps,
    embedding: at('model.embed_tokens.weight'),
    norm: at('model.norm.weight'),
    head: at(c.tiedEmbeddings ? 'model.embed_tokens.weight' : 'lm_head.weight'),
    layers: Array.from({ length: c.layers }, (_, i) => {
      const layer = `model.layers.${i}`;
      const four = (kind: string) => ({
        query: at(`${layer}.self_attn.q_proj.${kind}`),
        key: at(`${layer}.self_attn.k_proj.${kind}`),
        value: at(`${layer}.self_attn.v_proj.${kind}`),
        output: at(`${layer}.self_attn.o_proj.${kind}`),
      });
      const mlp = (name: string) => ({
        weight: at(`${layer}.mlp.${name}_proj.weight`),
        bias: bias(`${layer}.mlp.${name}_proj.bias`),
      });
      return {
        heads: c.heads,
        kvHeads: c.layerKvHeads[i],
        headDim: c.headDim,
        weights: four('weight'),
        biases: c.attentionBias ? four('bias') : undefined,
        turn: {
          headDim: c.headDim,
          rotaryDim: c.headDim,
          theta: c.rope.theta,
          interleaved: false,
          slowed: c.rope.scaling?.type === 'linear' ? c.rope.scaling.factor : 1,
        },
        attentionNorm: at(`${layer}.input_layernorm.weight`),
        mlpNorm: at(`${layer}.post_attention_layernorm.weight`),
        mlp: { gate: mlp('gate'), up: mlp('up'), down: mlp('down') },
      };
    }),
  };
}

function randomIds(count: number): number[] {
  const random = new Random(count);
  return Array.from({ length: count }, () => random.int(0, CONFIG.vocabSize - 1));
}

function load(
  config: ModelConfig,
  dtype: FloatName = 'f32',
): { model: LanguageModel; naive: NaiveLlama } {
  const weights = randomWeights(config, dtype);
  const source = sourceOf(weights, dtype);
  const model = loadArchitecture(config, source);
  expect([...source.loaded].sort()).toEqual([...weights.keys()].sort());
  return { model, naive: naiveOf(config, weights) };
}

/** CONFIG with changes; a number of KV heads is that of every layer. */
function configOf(changes: Partial<ModelConfig>): ModelConfig {
  const config = { ...CONFIG, ...changes };
  const { layers, kvHeads } = config;
  return { ...config, layerKvHeads: changes.layerKvHeads ?? new Array(layers).fill(kvHeads) };
}

const VARIANTS: [string, Partial<ModelConfig>, FloatName][] = [
  ['f32', {}, 'f32'],
  ['bf16', {}, 'bf16'],
  ['f16, tied embeddings', { tiedEmbeddings: true }, 'f16'],
  ['biases', { attentionBias: true, mlpBias: true }, 'f32'],
  [
    'MQA, linear RoPE scaling',
    { kvHeads: 1, rope: { theta: 500, scaling: { type: 'linear', factor: 4 } } },
    'f32',
  ],
  [
    'MHA, one layer, odd sizes',
    { kvHeads: 6, layers: 1, hiddenSize: 13, intermediateSize: 7 },
    'bf16',
  ],
  [
    'KV heads that differ by layer, biases',
    { layers: 3, kvHeads: 6, layerKvHeads: [2, 6, 1], attentionBias: true },
    'f32',
  ],
];

describe.each(VARIANTS)('%s', (_, changes, dtype) => {
  const config = configOf(changes);
  const { model, naive } = load(config, dtype);
  const vocab = config.vocabSize;
  const ids = randomIds(23);
  const expected = naiveLlama(naive, ids);
  afterAll(() => model.dispose());

  test('logits of all tokens, in one prompt and in parts', () => {
    for (const lengths of [[23], [1, 1, 1, 20], [11, 12], [22, 1]]) {
      const sequence = model.createCache({ capacity: 23, dtype: 'f32' }).sequence();
      let at = 0;
      for (const length of lengths) {
        const logits = model.forward(ids.slice(at, at + length), sequence, 'all');
        const part = expected.slice(at * vocab, (at + length) * vocab);
        expectClose(`tokens ${at} + ${length}`, logits, part, TOLERANCE);
        at += length;
      }
      expect(sequence.length).toBe(23);
    }
  });

  test('logits of the last token, token by token', () => {
    const sequence = model.createCache({ capacity: 23, dtype: 'f32' }).sequence();
    ids.forEach((id, t) => {
      const logits = model.forward([id], sequence, 'last');
      expectClose(`token ${t}`, logits, expected.slice(t * vocab, (t + 1) * vocab), TOLERANCE);
    });
  });

  test('a window with sink tokens, chunks and single tokens', () => {
    const options = { capacity: 10, dtype: 'f32', window: 5, sinkTokens: 2 } as const;
    const sequence = model.createCache(options).sequence();
    const windowed = naiveLlama(naive, ids, { window: 5, sinkTokens: 2 });
    const first = model.forward(ids.slice(0, 15), sequence, 'all');
    expectClose('prompt', first, windowed.slice(0, 15 * vocab), TOLERANCE);
    for (let t = 15; t < 23; t++) {
      const logits = model.forward([ids[t]], sequence, 'last');
      expectClose(`token ${t}`, logits, windowed.slice(t * vocab, (t + 1) * vocab), TOLERANCE);
    }
  });
});

describe('long prompts', () => {
  const { model, naive } = load(
    configOf({ layers: 1, hiddenSize: 12, intermediateSize: 8, heads: 2, kvHeads: 1 }),
  );
  // More than two of the chunks that a prompt is cut into.
  const ids = randomIds(600);

  test.each([
    ['full cache', { capacity: 600 }, {}],
    ['windowed cache', { capacity: 40, window: 30, sinkTokens: 3 }, { window: 30, sinkTokens: 3 }],
  ])('%s', (_, options, features) => {
    const cache = model.createCache({ dtype: 'f32', ...options });
    const expected = naiveLlama(naive, ids, features);
    const logits = model.forward(ids, cache.sequence(), 'all');
    expectClose('all', logits, expected, TOLERANCE);
    cache.dispose();
    const last = model.forward(
      ids,
      model.createCache({ dtype: 'f32', ...options }).sequence(),
      'last',
    );
    expect(last).toEqual(logits.slice(-CONFIG.vocabSize));
  });

  test('a windowed cache of the least size, fed by hand', () => {
    const { window, sinkTokens } = { window: 30, sinkTokens: 3 };
    const cache = new KvCache({
      layers: 1,
      kvHeads: 1,
      headDim: 8,
      capacity: 33,
      window,
      sinkTokens,
    });
    const some = ids.slice(0, 100);
    const logits = model.forward(some, cache.sequence(), 'all');
    expectClose('all', logits, naiveLlama(naive, some, { window, sinkTokens }), TOLERANCE);
  });
});

test('results are the caller’s own, or written where the caller says', () => {
  const { model } = load(CONFIG);
  const sequence = model.createCache({ capacity: 5, dtype: 'f32' }).sequence();
  const first = model.forward([1], sequence, 'last');
  const copy = first.slice();
  model.forward([2], sequence, 'last');
  expect(first).toEqual(copy);
  const all = new Float32Array(2 * CONFIG.vocabSize);
  expect(model.forward([3, 4], sequence, 'all', all)).toBe(all);
  sequence.truncate(3);
  model.forward([4], sequence, 'last', first);
  expectClose('the same', first, all.slice(CONFIG.vocabSize), TOLERANCE);
  expect(() => model.forward([1], sequence, 'last', first.subarray(1))).toThrow(
    expect.objectContaining({ code: 'BUFFER_TOO_SMALL', argument: 'out' }),
  );
  expect(sequence.length).toBe(4);
});

test('bytes count every weight, in its own dtype where the backend is native', () => {
  const floats = (c: ModelConfig) =>
    [...randomWeights(c, 'f32').values()].reduce((n, t) => n + t.values.length, 0);
  const { model } = load(CONFIG, 'bf16');
  const bytes = (backend().kind === 'native' ? 2 : 4) * floats(CONFIG);
  // Embedding rows stay 16 bits wide everywhere; packed layouts may pad.
  expect(model.bytes).toBeGreaterThan(0.9 * bytes);
  expect(model.bytes).toBeLessThan(1.5 * bytes);
});

describe('errors', () => {
  const { model } = load(CONFIG);
  const fails = (code: string, argument?: string) =>
    expect.objectContaining(argument === undefined ? { code } : { code, argument });

  test('before anything is appended', () => {
    const sequence = model.createCache({ capacity: 4, dtype: 'f32' }).sequence();
    const forward = (ids: number[]) => () => model.forward(ids, sequence, 'last');
    expect(forward([])).toThrow(fails('EMPTY_PROMPT', 'ids'));
    expect(forward([1, 37])).toThrow(fails('OUT_OF_RANGE', 'ids[1]'));
    expect(forward([1, 2, -1])).toThrow(fails('OUT_OF_RANGE', 'ids[2]'));
    expect(forward([0.5])).toThrow(fails('OUT_OF_RANGE', 'ids[0]'));
    expect(forward([1, 2, 3, 4, 5])).toThrow(fails('CONTEXT_EXCEEDED', 'ids'));
    expect(sequence.length).toBe(0);
    forward([1, 2, 3])();
    expect(forward([4, 5])).toThrow(fails('CONTEXT_EXCEEDED', 'ids'));
    expect(sequence.length).toBe(3);
    sequence.dispose();
    expect(forward([1])).toThrow(fails('DISPOSED', 'sequence'));
  });

  test('a missing tensor, an unknown architecture', () => {
    const weights = randomWeights(CONFIG, 'f32');
    weights.delete('model.layers.1.mlp.up_proj.weight');
    expect(() => loadArchitecture(CONFIG, sourceOf(weights, 'f32'))).toThrow(fails('INVALID_FILE'));
    for (const architecture of ['mamba', 'toString']) {
      expect(() => loadArchitecture({ ...CONFIG, architecture }, sourceOf(weights, 'f32'))).toThrow(
        fails('UNSUPPORTED_MODEL', 'architecture'),
      );
    }
  });

  test('after dispose', () => {
    const { model: gone } = load(CONFIG);
    const sequence = gone.createCache({ capacity: 4, dtype: 'f32' }).sequence();
    gone.dispose();
    gone.dispose();
    expect(() => gone.forward([1], sequence, 'last')).toThrow(fails('DISPOSED'));
  });
});
