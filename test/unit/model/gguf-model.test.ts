import { GqaError } from '../../../lib/core/errors';
import { GgufFile } from '../../../lib/format/gguf';
import { openGgufModel } from '../../../lib/model/gguf/model';
import { Rope } from '../../../lib/nn/rope';
import {
  entry,
  floats,
  GGUF_TYPE,
  ggufBytes,
  temporaryFolder,
  text,
  u32,
  write,
  type GgufTensor,
} from '../format/build-files';

const path = temporaryFolder();

const SMALL: Record<string, number | string | number[]> = {
  'general.architecture': 'llama',
  'llama.block_count': 2,
  'llama.context_length': 64,
  'llama.embedding_length': 16,
  'llama.feed_forward_length': 32,
  'llama.attention.head_count': 4,
  'llama.attention.head_count_kv': 2,
  'llama.vocab_size': 9,
  'tokenizer.ggml.bos_token_id': 1,
  'tokenizer.ggml.eos_token_id': 2,
};
const FLOATS: Record<string, number> = {
  'llama.attention.layer_norm_rms_epsilon': 2 ** -17,
  'llama.rope.freq_base': 5e5,
};

function tensor(name: string, dims: number[]): GgufTensor {
  return {
    name,
    dims,
    type: 0,
    data: floats(new Array<number>(dims.reduce((a, b) => a * b)).fill(2)),
  };
}

function read(
  changes: Record<string, number | string | number[] | undefined> = {},
  tensors: GgufTensor[] = [],
  numbers: Record<string, number> = {},
) {
  const entries = Object.entries({ ...SMALL, ...changes }).flatMap(([key, value]) => {
    if (value === undefined) return [];
    if (typeof value === 'string') return entry(key, GGUF_TYPE.string, text(value));
    if (typeof value === 'number') return entry(key, GGUF_TYPE.u32, u32(value));
    const items = [u32(GGUF_TYPE.u32), u32(value.length), u32(0), ...value.map(u32)];
    return entry(key, GGUF_TYPE.array, Buffer.concat(items));
  });
  for (const [key, value] of Object.entries({ ...FLOATS, ...numbers })) {
    entries.push(entry(key, GGUF_TYPE.f32, floats([value])));
  }
  const file = new GgufFile(write(path('x.gguf'), ggufBytes({ entries, tensors })));
  try {
    return openGgufModel(file).config;
  } finally {
    file.close();
  }
}

function codeOf(run: () => unknown): string {
  try {
    run();
  } catch (error) {
    if (error instanceof GqaError) return error.code;
    throw error;
  }
  return 'none';
}

describe('openGgufModel', () => {
  it('reads metadata and tensors', () => {
    expect(
      read({}, [tensor('token_embd.weight', [16, 10]), tensor('output.weight', [16, 10])]),
    ).toEqual({
      architecture: 'llama',
      vocabSize: 10,
      hiddenSize: 16,
      intermediateSize: 32,
      layers: 2,
      heads: 4,
      kvHeads: 2,
      layerKvHeads: [2, 2],
      headDim: 4,
      rmsNormEps: 2 ** -17,
      rope: { theta: 5e5, scaling: null },
      contextLength: 64,
      tiedEmbeddings: false,
      attentionBias: false,
      mlpBias: false,
      bosTokenId: 1,
      eosTokenIds: [2],
    });
  });

  it('sees what the tensors tell: ties and biases', () => {
    const biases = [tensor('blk.0.attn_q.bias', [16]), tensor('blk.0.ffn_gate.bias', [32])];
    expect(read({}, biases)).toMatchObject({
      tiedEmbeddings: true,
      attentionBias: true,
      mlpBias: true,
      vocabSize: 9,
    });
  });

  it('takes the head dim as stated, every end token, and numbers given by layer', () => {
    const config = read({
      'llama.attention.key_length': 8,
      'llama.attention.value_length': 8,
      'llama.rope.dimension_count': 8,
      'tokenizer.ggml.eot_token_id': 5,
      'llama.attention.head_count': [4, 4],
      'llama.attention.head_count_kv': undefined,
    });
    expect(config).toMatchObject({ headDim: 8, heads: 4, kvHeads: 4, eosTokenIds: [2, 5] });
  });

  it('reads KV heads that differ by layer', () => {
    const key = 'llama.attention.head_count_kv';
    expect(read({ [key]: [1, 4] })).toMatchObject({ kvHeads: 4, layerKvHeads: [1, 4] });
    for (const counts of [[2], [2, 2, 2], [2, 0]]) {
      expect([counts, codeOf(() => read({ [key]: counts }))]).toEqual([counts, 'INVALID_FILE']);
    }
    expect(codeOf(() => read({ [key]: [2, 3] }))).toBe('UNSUPPORTED_MODEL');
  });

  it('reads RoPE scaling: linear, and a tensor of divisors', () => {
    const linear = read({ 'llama.rope.scaling.type': 'linear' }, [], {
      'llama.rope.scaling.factor': 4,
    });
    expect(linear.rope.scaling).toEqual({ type: 'linear', factor: 4 });
    const divided = read({}, [tensor('rope_freqs.weight', [2])]);
    expect(divided.rope.scaling).toEqual({ type: 'factors', factors: [2, 2] });
    expect(codeOf(() => read({}, [tensor('rope_freqs.weight', [3])]))).toBe('INVALID_FILE');
    const zero = { ...tensor('rope_freqs.weight', [2]), data: floats([1, 0]) };
    expect(codeOf(() => read({}, [zero]))).toBe('INVALID_FILE');
  });

  it('turns by the divisors of Llama 3 as by its rule', () => {
    const headDim = 64;
    const [theta, factor, low, high, context] = [5e5, 32, 1, 4, 8192];
    // As the converter of llama.cpp computes rope_freqs, in wavelengths.
    const factors = Array.from({ length: headDim / 2 }, (_, r) => {
      const wavelength = 2 * Math.PI * theta ** ((2 * r) / headDim);
      if (wavelength < context / high) return 1;
      if (wavelength > context / low) return factor;
      const smooth = (context / wavelength - low) / (high - low);
      return 1 / ((1 - smooth) / factor + smooth);
    });
    const turned = new Rope({ headDim, theta, scaling: { type: 'factors', factors } });
    const scaling = {
      type: 'llama3',
      factor,
      lowFreqFactor: low,
      highFreqFactor: high,
      originalContext: context,
    } as const;
    const ruled = new Rope({ headDim, theta, scaling });
    turned.frequencies.forEach((frequency, r) => {
      expect(frequency / ruled.frequencies[r]).toBeCloseTo(1, 12);
    });
    expect(new Set(factors).size).toBeGreaterThan(4);
    expect(() => new Rope({ headDim: 8, scaling: { type: 'factors', factors } })).toThrow(GqaError);
  });

  it.each<[string, Record<string, number | string | number[] | undefined>, string]>([
    ['another architecture', { 'general.architecture': 'bert' }, 'UNSUPPORTED_MODEL'],
    ['no architecture', { 'general.architecture': undefined }, 'UNSUPPORTED_MODEL'],
    ['a part of a model', { 'split.count': 3 }, 'UNSUPPORTED_MODEL'],
    ['partial rotation', { 'llama.rope.dimension_count': 2 }, 'UNSUPPORTED_MODEL'],
    ['values of another size', { 'llama.attention.value_length': 2 }, 'UNSUPPORTED_MODEL'],
    ['LongRoPE', { 'llama.rope.scaling.type': 'longrope' }, 'UNSUPPORTED_MODEL'],
    ['heads that differ by layer', { 'llama.attention.head_count': [4, 2] }, 'UNSUPPORTED_MODEL'],
    ['a billion layers', { 'llama.block_count': 1e9 }, 'INVALID_FILE'],
    ['no layers', { 'llama.block_count': 0 }, 'INVALID_FILE'],
    ['text for a size', { 'llama.embedding_length': 'wide' }, 'INVALID_FILE'],
    ['no context length', { 'llama.context_length': undefined }, 'INVALID_FILE'],
  ])('refuses %s', (_, changes, code) => {
    expect(codeOf(() => read(changes))).toBe(code);
  });
});
