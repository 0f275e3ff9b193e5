/** config.json of architectures beside Llama: what a file leaves out, what is refused and by which name. */
import fc from 'fast-check';
import { GqaError } from '../../../lib/core/errors';
import { readConfig } from '../../../lib/model/arch';
import { JsonFields } from '../../../lib/model/json-fields';
import { errorOf } from '../refusals';

const SMALL = {
  vocab_size: 100,
  hidden_size: 64,
  intermediate_size: 128,
  num_hidden_layers: 4,
  num_attention_heads: 4,
  num_key_value_heads: 2,
  max_position_embeddings: 512,
};
const LONGROPE = {
  type: 'longrope',
  short_factor: new Array(8).fill(1),
  long_factor: new Array(8).fill(3),
};

function read(config: object): Record<string, unknown> {
  const fields = new JsonFields('config.json', JSON.parse(JSON.stringify(config)));
  const generation = new JsonFields('generation_config.json', {});
  return { ...readConfig({ fields, generation, hasTensor: () => false }) };
}

test.each<[string, object, object]>([
  ['mistral', { sliding_window: null }, { architecture: 'llama' }],
  [
    'mistral',
    { sliding_window: 9 },
    { architecture: 'mistral', layerWindows: [9, 9, 9, 9], rope: { theta: 1e4, scaling: null } },
  ],
  [
    'mixtral',
    {},
    {
      layerWindows: [null, null, null, null],
      experts: 8,
      expertsPerToken: 2,
      rmsNormEps: 1e-5,
      rope: { theta: 1e6, scaling: null },
    },
  ],
  ['qwen2', {}, { layerWindows: [null, null, null, null], headDim: 16 }],
  [
    'qwen2',
    { use_sliding_window: true, max_window_layers: 3 },
    { layerWindows: [null, null, null, 4096] },
  ],
  [
    'qwen3',
    {
      use_sliding_window: true,
      sliding_window: 7,
      layer_types: ['sliding_attention', 'full_attention', 'full_attention', 'full_attention'],
    },
    { layerWindows: [7, null, null, null], headDim: 128 },
  ],
  [
    'phi3',
    { rms_norm_eps: null, sliding_window: 2047 },
    { layerWindows: [2047, 2047, 2047, 2047], shortFactors: null, rmsNormEps: 1e-6 },
  ],
  ['phi3', { partial_rotary_factor: 0.5 }, { rope: { theta: 1e4, scaling: null, rotaryDim: 8 } }],
  [
    'phi3',
    { rope_scaling: LONGROPE, original_max_position_embeddings: 128 },
    {
      shortFactors: LONGROPE.short_factor,
      originalContext: 128,
      rope: {
        theta: 1e4,
        scaling: {
          type: 'factors',
          factors: LONGROPE.long_factor,
          attentionFactor: Math.sqrt(1 + Math.log(4) / Math.log(128)),
        },
      },
    },
  ],
  [
    'gemma2',
    { sliding_window: 5 },
    {
      layerWindows: [5, null, 5, null],
      headDim: 256,
      activation: 'gelu_tanh',
      queryScale: 256,
      attentionSoftcap: 50,
      logitSoftcap: 30,
      tiedEmbeddings: true,
    },
  ],
  [
    'gemma3_text',
    { sliding_window: 5, sliding_window_pattern: 2, rope_scaling: { type: 'linear', factor: 8 } },
    {
      architecture: 'gemma3',
      layerWindows: [5, null, 5, null],
      attentionSoftcap: null,
      logitSoftcap: null,
      rope: { theta: 1e6, scaling: { type: 'linear', factor: 8 } },
      localRope: { theta: 1e4, scaling: null },
    },
  ],
  [
    'gemma3',
    { text_config: { num_hidden_layers: 7 }, eos_token_id: [1, 106], hidden_size: 1 },
    {
      architecture: 'gemma3',
      hiddenSize: 2304,
      heads: 8,
      kvHeads: 4,
      vocabSize: 262_208,
      layerWindows: [4096, 4096, 4096, 4096, 4096, null, 4096],
      eosTokenIds: [1, 106],
    },
  ],
])('%s %j', (model_type, fields, expected) => {
  expect(read({ ...SMALL, model_type, ...fields })).toMatchObject(expected);
});

const QUANTISED = { quantization_config: { quant_method: 'awq' } };
const GLOBAL = 'full_attention';

test.each<[string, object, string]>([
  ['mistral', { sliding_window: 9, hidden_act: 'gelu' }, 'UNSUPPORTED_MODEL hidden_act'],
  ['mistral', { sliding_window: 0 }, 'INVALID_FILE sliding_window'],
  ['mistral', { ...QUANTISED, sliding_window: 9 }, 'UNSUPPORTED_MODEL quantization_config'],
  ['mixtral', { hidden_act: 'relu' }, 'UNSUPPORTED_MODEL hidden_act'],
  ['mixtral', { num_local_experts: 0 }, 'INVALID_FILE num_local_experts'],
  ['mixtral', { num_experts_per_tok: 9 }, 'INVALID_FILE num_experts_per_tok'],
  ['qwen2', { rope_scaling: { type: 'mrope' } }, 'UNSUPPORTED_MODEL RoPE scaling'],
  ['qwen2', { use_sliding_window: 'yes' }, 'INVALID_FILE use_sliding_window'],
  ['qwen2', { use_sliding_window: true, max_window_layers: -1 }, 'INVALID_FILE max_window_layers'],
  ['qwen3', { use_sliding_window: true, layer_types: [GLOBAL] }, 'INVALID_FILE layer_types'],
  [
    'qwen3',
    { use_sliding_window: true, layer_types: [GLOBAL, GLOBAL, GLOBAL, 'linear_attention'] },
    'UNSUPPORTED_MODEL layer_types[3]',
  ],
  ['qwen3', { partial_rotary_factor: 0.5 }, 'UNSUPPORTED_MODEL partial_rotary_factor'],
  ['phi3', { partial_rotary_factor: 0.2 }, 'UNSUPPORTED_MODEL partial_rotary_factor'],
  ['phi3', { rope_scaling: { type: 'ntk' } }, 'UNSUPPORTED_MODEL RoPE scaling'],
  ['phi3', { rope_scaling: { ...LONGROPE, short_factor: [1] } }, 'INVALID_FILE short_factor'],
  ['phi3', { rope_scaling: { ...LONGROPE, long_factor: null } }, 'INVALID_FILE long_factor'],
  ['gemma2', { hidden_activation: 'tanh' }, 'UNSUPPORTED_MODEL hidden_activation'],
  ['gemma2', { attn_logit_softcapping: -1 }, 'INVALID_FILE attn_logit_softcapping'],
  [
    'gemma2',
    { use_bidirectional_attention: true },
    'UNSUPPORTED_MODEL use_bidirectional_attention',
  ],
  ['gemma3_text', { sliding_window_pattern: 0 }, 'INVALID_FILE sliding_window_pattern'],
  [
    'gemma3_text',
    { rope_parameters: { full_attention: { rope_type: 'ntk' } } },
    'UNSUPPORTED_MODEL RoPE scaling',
  ],
  ['gemma3', { ...QUANTISED, text_config: {} }, 'UNSUPPORTED_MODEL quantization_config'],
  ['gemma3', { text_config: [] }, 'INVALID_FILE the whole file'],
])('%s refuses %j', (model_type, fields, error) => {
  expect(errorOf(() => read({ ...SMALL, model_type, ...fields }))).toBe(error);
});

it('never throws anything but GqaError, whatever a field holds', () => {
  const types = ['mistral', 'mixtral', 'qwen2', 'qwen3', 'phi3', 'gemma2', 'gemma3', 'gemma3_text'];
  const names = [
    ...Object.keys(SMALL),
    'sliding_window',
    'use_sliding_window',
    'layer_types',
    'rope_scaling',
    'rope_parameters',
    'partial_rotary_factor',
    'text_config',
    'num_local_experts',
    'final_logit_softcapping',
    'query_pre_attn_scalar',
  ];
  const value = fc.jsonValue({ maxDepth: 2 });
  fc.assert(
    fc.property(fc.constantFrom(...types), fc.constantFrom(...names), value, (type, name, v) => {
      try {
        read({ ...SMALL, model_type: type, use_sliding_window: true, [name]: v });
      } catch (error) {
        if (!(error instanceof GqaError)) throw error;
      }
    }),
    { numRuns: 1000 },
  );
});
