/** What the architectures beside Llama make of config.json: defaults, fields of their own names, and what they refuse. */
import type { GqaError } from '../../../lib';
import { readConfig } from '../../../lib/model/arch';
import { JsonFields } from '../../../lib/model/json-fields';

type Fields = Record<string, unknown>;

const GENERATION = new JsonFields('generation_config.json', {});

function read(fields: Fields) {
  const source = new JsonFields('config.json', fields);
  return readConfig({ fields: source, generation: GENERATION, hasTensor: () => true });
}

function refusal(fields: Fields): string {
  try {
    read(fields);
  } catch (error) {
    const { code, argument } = error as GqaError;
    return `${code} ${argument}`;
  }
  return 'none';
}

const FALCON = { model_type: 'falcon', hidden_size: 64, num_attention_heads: 4 };
const BIGCODE = { model_type: 'gpt_bigcode', n_embd: 64, n_head: 4, n_layer: 2, n_positions: 50 };
const NEOX = { model_type: 'gpt_neox', hidden_size: 64, num_attention_heads: 4 };
const GLM = { model_type: 'glm', hidden_size: 64, num_attention_heads: 4, head_dim: 20 };
const OSS = { model_type: 'gpt_oss', hidden_size: 64, num_attention_heads: 16 };
const CHATGLM = {
  model_type: 'chatglm',
  hidden_size: 64,
  num_layers: 3,
  num_attention_heads: 4,
  multi_query_attention: true,
  multi_query_group_num: 2,
  kv_channels: 16,
  padded_vocab_size: 99,
  seq_length: 512,
  ffn_hidden_size: 120,
};

test.each<[string, Fields, Fields]>([
  [
    'Falcon has one KV head and a tied head',
    FALCON,
    { kvHeads: 1, tiedEmbeddings: true, intermediateSize: 256, parallel: true, twoNorms: false },
  ],
  [
    'a grouped Falcon has two norms',
    { ...FALCON, new_decoder_architecture: true, num_kv_heads: 2, ffn_hidden_size: 99 },
    { kvHeads: 2, intermediateSize: 99, parallel: true, twoNorms: true },
  ],
  [
    'a grouped Falcon may have one norm (11B)',
    { ...FALCON, new_decoder_architecture: true, num_kv_heads: 2, num_ln_in_parallel_attn: 1 },
    { parallel: true, twoNorms: false },
  ],
  [
    'GPT-BigCode has names of its own',
    BIGCODE,
    { hiddenSize: 64, heads: 4, kvHeads: 1, layers: 2, contextLength: 50, intermediateSize: 256 },
  ],
  [
    'GPT-BigCode without multi-query',
    { ...BIGCODE, multi_query: false, n_inner: 100, scale_attn_weights: false },
    { kvHeads: 4, intermediateSize: 100, attentionScale: 1 },
  ],
  ['GPT-NeoX turns a quarter', NEOX, { rope: { theta: 10_000, scaling: null, rotaryDim: 4 } }],
  [
    'GPT-NeoX in its own words',
    { ...NEOX, rotary_pct: 1, rotary_emb_base: 500, hidden_act: 'gelu_fast' },
    { rope: { theta: 500, scaling: null }, activation: 'gelu_tanh' },
  ],
  ['GLM turns half', GLM, { rope: { theta: 10_000, scaling: null, rotaryDim: 10 } }],
  [
    'ChatGLM stretches theta',
    { ...CHATGLM, rope_ratio: 50 },
    {
      rope: { theta: 500_000, scaling: null, rotaryDim: 8 },
      kvHeads: 2,
      vocabSize: 99,
      layers: 3,
      contextLength: 512,
      attentionBias: false,
    },
  ],
  ['ChatGLM with as many KV heads', { ...CHATGLM, multi_query_attention: false }, { kvHeads: 4 }],
  [
    'YaRN with its usual numbers',
    { ...GLM, rope_scaling: { type: 'yarn', factor: 4, original_max_position_embeddings: 100 } },
    {
      rope: {
        theta: 10_000,
        rotaryDim: 10,
        scaling: {
          type: 'yarn',
          factor: 4,
          betaFast: 32,
          betaSlow: 1,
          originalContext: 100,
          truncate: true,
          attentionFactor: 0.1 * Math.log(4) + 1,
        },
      },
    },
  ],
])('%s', (_, fields, expected) => {
  expect(read(fields)).toMatchObject(expected);
});

test("YaRN's attention factor from two growths", () => {
  const scaling = { type: 'yarn', factor: 4, mscale: 2, mscale_all_dim: 1 };
  const { rope } = read({ ...GLM, rope_scaling: scaling });
  const factor = (0.2 * Math.log(4) + 1) / (0.1 * Math.log(4) + 1);
  expect((rope.scaling as { attentionFactor: number }).attentionFactor).toBeCloseTo(factor, 14);
});

test.each<[string, Fields, string]>([
  ['an unknown activation', { ...FALCON, activation: 'mish' }, 'UNSUPPORTED_MODEL activation'],
  [
    'KV heads that do not divide',
    { ...FALCON, new_decoder_architecture: true, num_kv_heads: 3 },
    'UNSUPPORTED_MODEL the number of KV heads',
  ],
  ["a size of the file's name", { ...BIGCODE, n_embd: 'x' }, 'INVALID_FILE n_embd'],
  [
    'an odd part of a head',
    { ...NEOX, rotary_pct: 0.2 },
    'UNSUPPORTED_MODEL partial_rotary_factor',
  ],
  [
    'more than a head turned',
    { ...GLM, partial_rotary_factor: 1.5 },
    'UNSUPPORTED_MODEL partial_rotary_factor',
  ],
  ['another activation of GLM', { ...GLM, hidden_act: 'gelu' }, 'UNSUPPORTED_MODEL hidden_act'],
  [
    'the first ChatGLM',
    { ...CHATGLM, position_encoding_2d: true },
    'UNSUPPORTED_MODEL position_encoding_2d',
  ],
  ['another gate of gpt-oss', { ...OSS, swiglu_limit: 5 }, 'UNSUPPORTED_MODEL swiglu_limit'],
  [
    'more experts a token than there are',
    { ...OSS, num_local_experts: 2 },
    'INVALID_FILE num_experts_per_tok',
  ],
  [
    'layers of a kind of their own',
    { ...OSS, num_hidden_layers: 1, layer_types: ['linear_attention'] },
    'UNSUPPORTED_MODEL layer_types[0]',
  ],
  ['a ChatGLM of layer norms', { ...CHATGLM, rmsnorm: false }, 'UNSUPPORTED_MODEL rmsnorm'],
  ['YaRN without a factor', { ...GLM, rope_scaling: { type: 'yarn' } }, 'INVALID_FILE factor'],
])('refuses %s', (_, fields, expected) => {
  expect(refusal(fields)).toBe(expected);
});
