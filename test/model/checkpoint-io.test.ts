/** Checkpoints copied and changed from folder and GGUF to folder and GGUF: what is written is what was read. */
import { gguf } from '@huggingface/gguf';
import { createHash } from 'node:crypto';
import { mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { GqaErrorCode } from '../../lib';
import type { LoadedTensor } from '../../lib/format/file';
import { loadArchitecture } from '../../lib/model/arch';
import { createSink, openSource } from '../../lib/model/checkpoint-io';
import type { CheckpointSource, SinkOptions } from '../../lib/model/checkpoint-io/types';
import { embeddedModel } from '../support/package';
import { refusal } from '../support/refusals';
import { TINY, writeTinyFolder, writeTinyGguf } from '../support/tiny-folder';
import { MODEL_LOGITS } from '../tolerances';

let folder: string;
beforeAll(() => {
  folder = mkdtempSync(join(tmpdir(), 'gqa-io-'));
});
afterAll(() => rmSync(folder, { recursive: true }));
let count = 0;
const fresh = (end = ''): string => join(folder, `model-${count++}${end}`);

const TEXT = 'Once upon a time, there were 12 cats. "Hello!" they said, and it\'s late.';

function withSource<T>(path: string, use: (source: CheckpointSource) => T): T {
  const source = openSource(path);
  try {
    return use(source);
  } finally {
    source.close();
  }
}

/** Writes `path` as `out`, with the changed tensors that `change` makes. */
function copy(
  path: string,
  out: string,
  options: SinkOptions = {},
  change: (source: CheckpointSource, name: string) => LoadedTensor = (source, name) =>
    source.read(name),
): string {
  withSource(path, (source) => {
    const sink = createSink(out, source, options);
    try {
      for (const name of options.changed ?? []) sink.write(name, change(source, name));
      sink.commit();
      expect(sink.writtenBytes).toBe(sink.totalBytes);
    } finally {
      sink.abort();
    }
  });
  return out;
}

/** Every tensor's dtype, shape and a hash of its bits: jest takes seconds over the bits themselves. */
function tensorsOf(path: string): Map<string, string> {
  return withSource(
    path,
    (source) =>
      new Map(
        Array.from(source.tensors.keys(), (name) => {
          const { dtype, shape, data } = source.read(name);
          return [
            name,
            `${dtype} [${shape.join()}] ${createHash('sha256').update(data).digest('hex')}`,
          ];
        }),
      ),
  );
}

/** In this thread: workers would take most of the time. */
function resultsOf(path: string): { ids: number[]; logits: Float32Array } {
  return withSource(path, ({ config, weights, tokenizer }) => {
    const ids = tokenizer().encode(TEXT);
    const model = loadArchitecture(config, weights);
    const cache = model.createCache({ capacity: ids.length, dtype: 'f32' });
    const logits = model.forward(ids, cache.sequence(), 'last');
    cache.dispose();
    model.dispose();
    return { ids, logits };
  });
}

function expectSameResults(path: string, original: string): void {
  const [found, expected] = [resultsOf(path), resultsOf(original)];
  expect(found.ids).toEqual(expected.ids);
  const largest = expected.logits.reduce((m, x) => Math.max(m, Math.abs(x)), 0);
  const error = expected.logits.reduce((m, x, i) => Math.max(m, Math.abs(x - found.logits[i])), 0);
  // The weights are the same; GGUF's epsilon is an f32.
  expect(error / largest).toBeLessThan(MODEL_LOGITS / 100);
}

describe('the embedded model', () => {
  test('to GGUF and back: every tensor to the bit, the same ids and logits', async () => {
    const file = copy(embeddedModel, fresh('.gguf'));
    const back = copy(file, fresh());
    expect(tensorsOf(back)).toEqual(tensorsOf(embeddedModel));
    expectSameResults(file, embeddedModel);
    expectSameResults(back, embeddedModel);
    const config = JSON.parse(readFileSync(join(back, 'config.json'), 'utf8'));
    const original = JSON.parse(readFileSync(join(embeddedModel, 'config.json'), 'utf8'));
    expect(config).toMatchObject(original);

    const { metadata, tensorInfos } = await gguf(file, { allowLocalFile: true });
    expect(metadata).toMatchObject({
      'general.architecture': 'llama',
      'general.file_type': 32,
      'llama.attention.head_count': 6,
      'llama.attention.head_count_kv': 2,
      'tokenizer.ggml.pre': 'gpt-2',
      'tokenizer.ggml.add_bos_token': true,
    });
    expect(tensorInfos).toHaveLength(6 * 9 + 2);
  });

  test('to a folder, in shards too: tensors and files as they are', () => {
    const plain = copy(embeddedModel, fresh());
    expect(tensorsOf(plain)).toEqual(tensorsOf(embeddedModel));
    expect(readdirSync(plain)).toEqual(readdirSync(embeddedModel));
    const shards = copy(embeddedModel, fresh(), {
      shardBytes: 3_000_000,
      files: { 'README.md': 'what was done' },
    });
    expect(tensorsOf(shards)).toEqual(tensorsOf(embeddedModel));
    expect(readdirSync(shards)).toContain('model.safetensors.index.json');
    expect(readFileSync(join(shards, 'README.md'), 'utf8')).toBe('what was done');
  });

  test('from GGUF to GGUF: the same file, whatever the types', () => {
    const file = copy(embeddedModel, fresh('.gguf'));
    for (const source of [file, writeTinyGguf(fresh('.gguf'), 'Q8_0')]) {
      const bytes = readFileSync(copy(source, fresh('.gguf')));
      expect(bytes.equals(readFileSync(source))).toBe(true);
    }
  });
});

/** K and V projections of all layers. */
const KV_NAMES = Array.from({ length: TINY.layers }, (_, layer) =>
  ['k', 'v'].map((part) => `model.layers.${layer}.self_attn.${part}_proj.weight`),
).flat();

/** The first heads of each group. */
function firstHeads(plan: readonly number[]) {
  return (source: CheckpointSource, name: string): LoadedTensor => {
    const { shape, dtype, data } = source.read(name);
    const kvHeads = plan[Number(/\d+/.exec(name)![0])];
    const size = data.length / TINY.heads;
    const out = data.slice(0, kvHeads * size);
    for (let head = 0; head < kvHeads; head++) {
      const from = head * (TINY.heads / kvHeads) * size;
      out.set(data.subarray(from, from + size), head * size);
    }
    return { shape: [(shape[0] / TINY.heads) * kvHeads, shape[1]], dtype, data: out };
  };
}

describe.each([
  ['a uniform plan', [2, 2, 2], { num_key_value_heads: 2 }],
  ['a plan by layer', [2, 6, 1], { num_key_value_heads: 6, gqa_kv_heads: [2, 6, 1] }],
  [
    'a plan whose numbers share none',
    [3, 2, 1],
    { num_key_value_heads: 6, gqa_kv_heads: [3, 2, 1] },
  ],
])('%s', (_, plan, json) => {
  const options = { layerKvHeads: plan, changed: KV_NAMES };

  test('makes the same model in a folder and in GGUF, and from one the other', async () => {
    const original = writeTinyFolder(fresh());
    const asFolder = copy(original, fresh(), options, firstHeads(plan));
    const asGguf = copy(original, fresh('.gguf'), options, firstHeads(plan));
    expect(JSON.parse(readFileSync(join(asFolder, 'config.json'), 'utf8'))).toMatchObject(json);
    expect(tensorsOf(asGguf)).toEqual(tensorsOf(asFolder));
    for (const path of [asFolder, asGguf]) {
      withSource(path, ({ config }) => expect(config.layerKvHeads).toEqual(plan));
    }
    expectSameResults(asGguf, asFolder);
    expect(tensorsOf(copy(asGguf, fresh()))).toEqual(tensorsOf(asFolder));
    expect(tensorsOf(copy(asFolder, fresh('.gguf')))).toEqual(tensorsOf(asFolder));
    const { metadata } = await gguf(asGguf, { allowLocalFile: true });
    const counts = new Set(plan).size === 1 ? plan[0] : plan;
    expect(metadata['llama.attention.head_count_kv' as keyof typeof metadata]).toEqual(counts);
  });
});

test('tensors are rounded to the dtype of the source', () => {
  const name = 'model.layers.0.self_attn.k_proj.weight';
  const rounded = copy(embeddedModel, fresh(), { changed: [name] }, (source) => {
    const { shape, data } = source.read(name);
    // Half a step of bf16 beyond 1: to even.
    return { shape, dtype: 'f32', data: new Float32Array(data.length).fill(1 + 2 ** -8) };
  });
  withSource(rounded, (source) => {
    const { dtype, data } = source.read(name);
    expect([dtype, new Set(data)]).toEqual(['bf16', new Set([0x3f80])]);
  });
});

const LLAMA3 = {
  rope_type: 'llama3',
  factor: 8,
  low_freq_factor: 1,
  high_freq_factor: 4,
  original_max_position_embeddings: 64,
};

test.each([
  ['Llama 3', LLAMA3],
  ['linear', { rope_type: 'linear', factor: 2.5 }],
])('%s RoPE scaling goes to GGUF and back', (_, scaling) => {
  const original = writeTinyFolder(fresh(), { rope_scaling: scaling });
  const file = copy(original, fresh('.gguf'));
  expectSameResults(file, original);
  const back = copy(file, fresh());
  const config = JSON.parse(readFileSync(join(back, 'config.json'), 'utf8'));
  expect(config.rope_scaling).toEqual(scaling);
  expectSameResults(back, original);
});

describe('refused, with nothing left and the source as it was', () => {
  const K = KV_NAMES[0];
  const good = (out: string, options: SinkOptions, change?: Parameters<typeof copy>[3]) =>
    copy(writeTinyFolder(fresh()), out, options, change);
  const filled = (value: number) => (source: CheckpointSource, name: string) => {
    const { shape, data } = source.read(name);
    return { shape, dtype: 'f32' as const, data: new Float32Array(data.length).fill(value) };
  };
  const edited = (edit: (name: string) => boolean) =>
    writeTinyFolder(fresh(), {}, (tensors) => tensors.filter(({ name }) => edit(name)));

  test.each<[string, GqaErrorCode, (out: string) => unknown]>([
    [
      'heads that do not divide',
      'HEADS_NOT_DIVISIBLE',
      (out) => good(out, { layerKvHeads: [4, 4, 4] }),
    ],
    ['no KV heads', 'OUT_OF_RANGE', (out) => good(out, { layerKvHeads: [0, 1, 1] })],
    ['a plan of too few layers', 'INVALID_ARGUMENT', (out) => good(out, { layerKvHeads: [1] })],
    [
      'heads that change in no tensor',
      'INVALID_ARGUMENT',
      (out) => good(out, { layerKvHeads: [1, 1, 1] }),
    ],
    ['a change of no tensor', 'INVALID_ARGUMENT', (out) => good(out, { changed: ['x'] })],
    ['NaN', 'NON_FINITE', (out) => good(out, { changed: [K] }, filled(NaN))],
    [
      'a value beyond bf16',
      'NON_FINITE',
      (out) => copy(embeddedModel, out, { changed: [K] }, filled(3.4e38)),
    ],
    [
      'a tensor of another shape',
      'INVALID_SHAPE',
      (out) => good(out, { changed: [K] }, (s) => s.read('model.norm.weight')),
    ],
    [
      'a tensor missing',
      'INVALID_FILE',
      (out) =>
        copy(
          edited((n) => n !== 'blk.1.attn_v.weight'),
          out,
        ),
    ],
    [
      'a tensor of a wrong shape',
      'INVALID_FILE',
      (out) => copy(writeTinyFolder(fresh(), { num_key_value_heads: 3 }), out),
    ],
    [
      'a tensor never written',
      'INVALID_ARGUMENT',
      (out) =>
        withSource(embeddedModel, (source) => createSink(out, source, { changed: [K] }).commit()),
    ],
    [
      'a change of blocks',
      'UNSUPPORTED_MODEL',
      (out) => copy(writeTinyGguf(fresh('.gguf'), 'Q8_0'), `${out}.gguf`, { changed: [K] }),
    ],
    [
      'blocks in a folder',
      'UNSUPPORTED_MODEL',
      (out) => copy(writeTinyGguf(fresh('.gguf'), 'Q8_0'), out),
    ],
    [
      'a tensor that folders have no word for',
      'UNSUPPORTED_MODEL',
      (out) => copy(writeTinyGguf(fresh('.gguf'), 'F32', [EXTRA]), out),
    ],
    [
      'RoPE divisors of another rule in a folder',
      'UNSUPPORTED_MODEL',
      (out) => copy(writeTinyGguf(fresh('.gguf'), 'F32', [DIVISORS]), out),
    ],
    [
      'a tensor that GGUF has no word for',
      'UNSUPPORTED_MODEL',
      (out) =>
        copy(
          writeTinyFolder(fresh(), {}, (tensors) => [...tensors, EXTRA]),
          `${out}.gguf`,
        ),
    ],
    [
      'a tokenizer that GGUF has no word for',
      'UNSUPPORTED_MODEL',
      (out) => {
        const path = writeTinyFolder(fresh());
        const json = JSON.parse(readFileSync(join(path, 'tokenizer.json'), 'utf8'));
        json.pre_tokenizer = { type: 'Whitespace' };
        writeFileSync(join(path, 'tokenizer.json'), JSON.stringify(json));
        return copy(path, `${out}.gguf`);
      },
    ],
  ])('%s', async (what, code, run) => {
    const place = mkdtempSync(join(folder, 'place-'));
    const before = readFileSync(join(embeddedModel, 'model.safetensors'));
    const error = await refusal(() => run(join(place, 'out')));
    expect([what, error.code, error.message]).toEqual([what, code, error.message]);
    expect(readdirSync(place)).toEqual([]);
    expect(readFileSync(join(embeddedModel, 'model.safetensors')).equals(before)).toBe(true);
  });

  const EXTRA = {
    name: 'blk.0.attn_q_norm.weight',
    shape: [2],
    type: 'F32' as const,
    bytes: new Uint8Array(8),
  };
  const DIVISORS = {
    name: 'rope_freqs.weight',
    shape: [8],
    type: 'F32' as const,
    bytes: new Uint8Array(Float32Array.of(1, 3, 1, 4, 1, 5, 9, 2).buffer),
  };
});
