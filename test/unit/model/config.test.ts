import fc from 'fast-check';
import { GqaError } from '../../../lib/core/errors';
import { readConfig } from '../../../lib/model/arch';
import { JsonFields } from '../../../lib/model/json-fields';
import type { ModelConfig } from '../../../lib/model/types';

const SMALL = {
  model_type: 'llama',
  vocab_size: 100,
  hidden_size: 64,
  intermediate_size: 128,
  num_hidden_layers: 2,
  num_attention_heads: 4,
  num_key_value_heads: 2,
  rms_norm_eps: 1e-5,
  max_position_embeddings: 512,
  tie_word_embeddings: true,
};

function read(config: object, generation: object = {}, hasHead = false): ModelConfig {
  const fields = new JsonFields('config.json', JSON.parse(JSON.stringify(config)));
  return readConfig({
    fields,
    generation: new JsonFields('generation_config.json', generation),
    hasTensor: () => hasHead,
  });
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

describe('readConfig', () => {
  it('reads what is stated', () => {
    const config = read({
      ...SMALL,
      head_dim: 32,
      rope_theta: 5e5,
      attention_bias: true,
      mlp_bias: true,
      bos_token_id: 1,
      eos_token_id: [2, 3],
    });
    expect(config).toEqual({
      architecture: 'llama',
      vocabSize: 100,
      hiddenSize: 64,
      intermediateSize: 128,
      layers: 2,
      heads: 4,
      kvHeads: 2,
      layerKvHeads: [2, 2],
      headDim: 32,
      rmsNormEps: 1e-5,
      rope: { theta: 5e5, scaling: null },
      contextLength: 512,
      tiedEmbeddings: true,
      attentionBias: true,
      mlpBias: true,
      bosTokenId: 1,
      eosTokenIds: [2, 3],
    });
  });

  it('fills in what is not, null as missing', () => {
    const config = read({ model_type: 'llama', head_dim: null, num_key_value_heads: null });
    expect(config).toMatchObject({
      vocabSize: 32000,
      hiddenSize: 4096,
      intermediateSize: 11008,
      layers: 32,
      heads: 32,
      kvHeads: 32,
      headDim: 128,
      rmsNormEps: 1e-6,
      rope: { theta: 10000, scaling: null },
      contextLength: 2048,
      tiedEmbeddings: true,
      attentionBias: false,
      mlpBias: false,
      bosTokenId: null,
      eosTokenIds: [],
    });
  });

  it('takes an output head of its own where the file does not say and the checkpoint has one', () => {
    const unsaid = { ...SMALL, tie_word_embeddings: null };
    expect(read(unsaid, {}, true).tiedEmbeddings).toBe(false);
    expect(read(SMALL, {}, true).tiedEmbeddings).toBe(true);
    expect(read({ ...SMALL, tie_word_embeddings: false }, {}, false).tiedEmbeddings).toBe(false);
  });

  it('reads KV heads that differ by layer', () => {
    const plan = (counts: unknown, stored = 4) =>
      read({ ...SMALL, num_key_value_heads: stored, gqa_kv_heads: counts });
    expect(plan([4, 2])).toMatchObject({ kvHeads: 4, layerKvHeads: [4, 2] });
    expect(plan([1, 2])).toMatchObject({ kvHeads: 2, layerKvHeads: [1, 2] });
    expect(plan(null)).toMatchObject({ kvHeads: 4, layerKvHeads: [4, 4] });
    for (const counts of [[4], [4, 2, 2], [4, 3], [4, 0], [4, -2], [4, '2'], [4, 1.5], 4, {}]) {
      expect([counts, codeOf(() => plan(counts))]).toEqual([counts, 'INVALID_FILE']);
    }
    expect(codeOf(() => plan([1, 1], 3))).toBe('UNSUPPORTED_MODEL');
  });

  it('joins the end tokens of config.json and generation_config.json', () => {
    const ends = (eos: unknown, generation: unknown) =>
      read({ ...SMALL, eos_token_id: eos }, { eos_token_id: generation }).eosTokenIds;
    expect(ends(2, [2, 7])).toEqual([2, 7]);
    expect(ends(null, 7)).toEqual([7]);
    expect(ends(-1, undefined)).toEqual([]);
  });

  const LLAMA3 = {
    factor: 32,
    low_freq_factor: 1,
    high_freq_factor: 4,
    original_max_position_embeddings: 8192,
  };
  const LLAMA3_READ = {
    type: 'llama3',
    factor: 32,
    lowFreqFactor: 1,
    highFreqFactor: 4,
    originalContext: 8192,
  };

  it.each<[string, object, object]>([
    ['nothing', {}, { theta: 10000, scaling: null }],
    ['rope_theta', { rope_theta: 1e6 }, { theta: 1e6, scaling: null }],
    ['rope_scaling null', { rope_scaling: null }, { theta: 10000, scaling: null }],
    [
      'the older type field',
      { rope_scaling: { type: 'linear', factor: 4 } },
      { theta: 10000, scaling: { type: 'linear', factor: 4 } },
    ],
    [
      'llama3 scaling',
      { rope_theta: 5e5, rope_scaling: { rope_type: 'llama3', ...LLAMA3 } },
      { theta: 5e5, scaling: LLAMA3_READ },
    ],
    [
      'rope_parameters of transformers 5',
      { rope_parameters: { rope_theta: 5e5, rope_type: 'llama3', ...LLAMA3 } },
      { theta: 5e5, scaling: LLAMA3_READ },
    ],
    [
      'rope_parameters without scaling',
      { rope_parameters: { rope_theta: 1e5, rope_type: 'default' } },
      { theta: 1e5, scaling: null },
    ],
    [
      'both: the newer field',
      { rope_theta: 1, rope_parameters: { rope_theta: 2, rope_type: 'default' } },
      { theta: 2, scaling: null },
    ],
  ])('reads RoPE from %s', (_, fields, expected) => {
    expect(read({ ...SMALL, ...fields }).rope).toEqual(expected);
  });

  it.each<[string, object]>([
    ['another architecture', { model_type: 'gpt2' }],
    ['an architecture named like an object method', { model_type: 'constructor' }],
    ['no architecture', { model_type: null }],
    ['another activation', { hidden_act: 'gelu' }],
    ['quantised weights', { quantization_config: { quant_method: 'gptq' } }],
    ['a sliding window', { sliding_window: 4096 }],
    ['unknown RoPE scaling', { rope_scaling: { rope_type: 'dynamic', factor: 4 } }],
    ['partial rotation', { partial_rotary_factor: 0.5 }],
    ['RoPE by layer type', { rope_parameters: { full_attention: { rope_theta: 1 } } }],
    ['heads that KV heads do not divide', { num_key_value_heads: 3 }],
    ['an odd head dim', { head_dim: 15 }],
  ])('does not support %s', (_, fields) => {
    expect(codeOf(() => read({ ...SMALL, ...fields }))).toBe('UNSUPPORTED_MODEL');
  });

  it.each<[string, object]>([
    ['text for a size', { hidden_size: '64' }],
    ['a negative size', { vocab_size: -1 }],
    ['a billion layers', { num_hidden_layers: 1e9 }],
    ['zero layers', { num_hidden_layers: 0 }],
    ['a size of 2^40', { intermediate_size: 2 ** 40 }],
    ['a fraction of a head', { hidden_size: 63 }],
    ['eps 0', { rms_norm_eps: 0 }],
    ['a list for theta', { rope_theta: [] }],
    ['a number for a flag', { attention_bias: 1 }],
    ['text for end tokens', { eos_token_id: 'end' }],
    ['a list for scaling', { rope_scaling: [] }],
    ['scaling without a factor', { rope_scaling: { rope_type: 'linear' } }],
    [
      'scaling factors in the wrong order',
      { rope_scaling: { rope_type: 'llama3', ...LLAMA3, high_freq_factor: 1 } },
    ],
  ])('refuses %s', (_, fields) => {
    expect(codeOf(() => read({ ...SMALL, ...fields }))).toBe('INVALID_FILE');
  });

  it('never throws anything but GqaError, whatever a field holds', () => {
    const names = [
      ...Object.keys(SMALL),
      'rope_scaling',
      'rope_parameters',
      'head_dim',
      'eos_token_id',
      'gqa_kv_heads',
    ];
    fc.assert(
      fc.property(fc.constantFrom(...names), fc.jsonValue({ maxDepth: 2 }), (name, value) => {
        codeOf(() => read({ ...SMALL, [name]: value }));
      }),
      { numRuns: 500 },
    );
  });
});
