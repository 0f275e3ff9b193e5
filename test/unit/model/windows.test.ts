/**
 * Layers with windows of their own over their rings of the cache: the logits of a cache that evicts nothing, however the
 * text is cut, chunks of 256 always among the ways.
 */
import { join } from 'node:path';
import { KvCache, type KvSequence } from '../../../lib';
import { loadArchitecture } from '../../../lib/model/arch';
import { openCheckpoint } from '../../../lib/model/checkpoint';
import type { LayerWindows, WindowedConfig } from '../../../lib/model/config-windows';
import type { LanguageModel } from '../../../lib/model/types';
import { ARCHITECTURE_GOLDENS } from '../../support/golden-architectures';
import { Random } from '../../support/random';
import { ARCHITECTURE_LOGITS } from '../../tolerances';
import { errorOf } from '../refusals';

const CHUNK = 256;
const TOKENS = 750;
const random = new Random(5);
const TEXT = Array.from({ length: TOKENS }, () => random.int(3, 127));

/** A golden's model with other windows. */
function load(name: string, layerWindows?: LayerWindows): LanguageModel {
  const { config, weights } = openCheckpoint(join(ARCHITECTURE_GOLDENS, name));
  try {
    const own = layerWindows === undefined ? config : { ...config, layerWindows };
    return loadArchitecture(own, weights);
  } finally {
    weights.close();
  }
}

/** A cache with room for the whole text in every layer. */
function roomyCache({ config }: LanguageModel): KvCache {
  const { layerWindows, layerKvHeads, headDim } = config as WindowedConfig;
  const layers = layerWindows.map((window, i) => ({
    kvHeads: layerKvHeads[i],
    capacity: TOKENS,
    ...(window === null ? {} : { window }),
  }));
  return new KvCache({ layers, headDim, capacity: TOKENS });
}

/** Logits of all tokens, appended in chunks of these sizes in turn. */
function logitsInChunks(
  model: LanguageModel,
  sequence: KvSequence,
  sizes: readonly number[],
): Float32Array {
  const { vocabSize } = model.config;
  const logits = new Float32Array(TOKENS * vocabSize);
  for (let from = 0, i = 0, size; from < TOKENS; from += size, i++) {
    expect(sequence.longestChunk).toBeGreaterThanOrEqual(Math.min(CHUNK, TOKENS - from));
    size = Math.min(sizes[i % sizes.length], TOKENS - from);
    const run = { sequence, ids: TEXT.slice(from, from + size), want: 'all' as const };
    model.step([run], logits.subarray(from * vocabSize));
  }
  return logits;
}

function worst(got: Float32Array, expected: Float32Array): number {
  const largest = expected.reduce((most, x) => Math.max(most, Math.abs(x)), 1);
  return expected.reduce((most, x, i) => Math.max(most, Math.abs(x - got[i])), 0) / largest;
}

describe.each<[string, string, LayerWindows]>([
  ['all layers, smaller than a chunk', 'mistral', [16, 16, 16]],
  ['all layers, larger than a chunk', 'mistral', [300, 300, 300]],
  ['all layers, of one token', 'mistral', [1, 1, 1]],
  ['some layers, smaller than a chunk', 'gemma2', [16, null, 16]],
  ['some layers, larger than a chunk', 'qwen2-window', [null, 257, 600]],
  ['layers of different windows', 'gemma3', [16, 300, null, 64]],
])('windows of %s', (_, name, windows) => {
  const model = load(name, windows);
  let expected: Float32Array;
  beforeAll(() => {
    const cache = roomyCache(model);
    expected = logitsInChunks(model, cache.sequence(), [100]);
    cache.dispose();
  });
  afterAll(() => model.dispose());

  test.each([[[CHUNK]], [[1]], [[CHUNK, 1, 37, 200, 1, 1, CHUNK]]])('chunks of %j', (sizes) => {
    const cache = model.createCache({ capacity: TOKENS });
    const got = logitsInChunks(model, cache.sequence(), sizes);
    expect(worst(got, expected)).toBeLessThan(ARCHITECTURE_LOGITS / 20);
    cache.dispose();
  });

  test('several sequences at once, each at another place of its ring', () => {
    const cache = model.createCache({ capacity: TOKENS, sequences: 3 });
    const sequences = [0, 290, 650].map((length) => {
      const sequence = cache.sequence();
      if (length > 0) model.forward(TEXT.slice(0, length), sequence, 'last');
      return sequence;
    });
    const { vocabSize } = model.config;
    const out = new Float32Array(3 * vocabSize);
    for (let i = 0; i < 40; i++) {
      const runs = sequences.map((sequence) => {
        const { length } = sequence;
        return { sequence, ids: TEXT.slice(length, length + 1 + (i % 3)), want: 'last' as const };
      });
      model.step(runs, out);
      sequences.forEach(({ length }, row) => {
        const got = out.subarray(row * vocabSize, (row + 1) * vocabSize);
        const wanted = expected.subarray((length - 1) * vocabSize, length * vocabSize);
        expect(worst(got, wanted)).toBeLessThan(ARCHITECTURE_LOGITS / 20);
      });
    }
    cache.dispose();
  });
});

test('a window that no text of the cache outgrows costs no memory', () => {
  const model = load('mistral', [4096, 4096, 4096]);
  const plain = load('mistral', [null, null, null]);
  const [cache, small] = [model, plain].map((m) => m.createCache({ capacity: 256 }));
  expect(cache.bytes).toBe(small.bytes);
  const sequence = cache.sequence();
  expect(sequence.longestChunk).toBe(256);
  expect(sequence.room).toBe(256);
  expect(model.forward(TEXT.slice(0, 200), sequence, 'last')).toEqual(
    plain.forward(TEXT.slice(0, 200), small.sequence(), 'last'),
  );
  for (const part of [cache, small, model, plain]) part.dispose();
});

test("a caller's window narrows a layer's own and gives one to the others", () => {
  const model = load('gemma2', [16, null, 16]);
  const narrow = load('gemma2', [8, 8, 8]);
  const between = load('gemma2', [16, 20, 16]);
  for (const [window, same] of [
    [8, narrow],
    [20, between],
  ] as const) {
    const caches = [
      model.createCache({ capacity: window, window }),
      same.createCache({ capacity: TOKENS }),
    ];
    const [got, expected] = [model, same].map((m, i) =>
      logitsInChunks(m, caches[i].sequence(), [CHUNK, 3]),
    );
    expect(worst(got, expected)).toBeLessThan(ARCHITECTURE_LOGITS / 20);
    for (const cache of caches) cache.dispose();
  }
  for (const each of [model, narrow, between]) each.dispose();
});

test.each(['mistral', 'phi3-longrope', 'gemma2'])('positions that the cache counts: %s', (name) => {
  const model = load(name);
  const [expected, got] = (['absolute', 'cache'] as const).map((positions) => {
    const cache = model.createCache({ capacity: TOKENS, positions });
    const logits = logitsInChunks(model, cache.sequence(), [100]);
    cache.dispose();
    return logits;
  });
  expect(worst(got, expected)).toBeLessThan(ARCHITECTURE_LOGITS / 20);
  model.dispose();
});

test('a model of two RoPEs leaves positions to the text', () => {
  const model = load('gemma3');
  const made = () => model.createCache({ capacity: TOKENS, positions: 'cache' });
  expect(errorOf(made)).toBe('UNSUPPORTED_MODEL positions');
  model.dispose();
});
