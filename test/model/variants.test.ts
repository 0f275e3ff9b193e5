/** What config.json may say of a Llama, each against the float64 forward pass: biases, RoPE scalings, ties, windows. */
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { loadModel, type LoadOptions } from '../../lib';
import { decodeTensor, randomTensor, type GgufTensor } from '../support/gguf';
import { Random } from '../support/random';
import { huggingFaceName, writeSafetensors } from '../support/reference-checkpoint';
import { referenceLogits, type ReferenceConfig } from '../support/reference-llama';
import { huggingFaceConfig, randomTensors } from '../support/tiny-llama';
import { MODEL_LOGITS } from '../tolerances';

const CONFIG: ReferenceConfig = {
  vocab: 32,
  hidden: 48,
  intermediate: 80,
  layers: 3,
  heads: 6,
  kvHeads: 2,
  headDim: 16,
  eps: 1e-5,
  theta: 500,
  ropePairs: 'halves',
};
const IDS = Array.from({ length: 41 }, (_, i) => (i * i * 7) % 32);
const PAIRS = CONFIG.headDim / 2;
const plain = (r: number) => CONFIG.theta ** (-r / PAIRS);

/** Llama 3's rule: long waves are slowed by the factor, short ones are not, those between by a part of it. */
function llama3(r: number): number {
  const [factor, low, high, original] = [8, 1, 4, 64];
  const wave = (2 * Math.PI) / plain(r);
  if (wave < original / high) return plain(r);
  if (wave > original / low) return plain(r) / factor;
  const share = (original / wave - low) / (high - low);
  return ((1 - share) * plain(r)) / factor + share * plain(r);
}

const LLAMA3 = {
  factor: 8,
  low_freq_factor: 1,
  high_freq_factor: 4,
  original_max_position_embeddings: 64,
};

interface Variant {
  config?: Partial<ReferenceConfig>;
  json?: Record<string, unknown>;
  load?: LoadOptions;
  tied?: boolean;
}

const VARIANTS: [string, Variant][] = [
  ['plain', {}],
  [
    'query, key, value and output biases',
    {
      config: { biased: ['attn_q', 'attn_k', 'attn_v', 'attn_output'] },
      json: { attention_bias: true },
    },
  ],
  [
    'MLP biases',
    { config: { biased: ['ffn_gate', 'ffn_up', 'ffn_down'] }, json: { mlp_bias: true } },
  ],
  ['a tied embedding', { tied: true, json: { tie_word_embeddings: true } }],
  [
    'no head_dim, where it is hidden / heads',
    { config: { headDim: 8 }, json: { head_dim: undefined } },
  ],
  ['one KV head', { config: { kvHeads: 1 } }],
  ['as many KV heads as heads', { config: { kvHeads: 6 } }],
  [
    'as many KV heads as heads, unsaid',
    { config: { kvHeads: 6 }, json: { num_key_value_heads: undefined } },
  ],
  ['no scaling, said', { json: { rope_scaling: null } }],
  [
    'linear RoPE scaling',
    {
      config: { frequency: (r) => plain(r) / 4 },
      json: { rope_scaling: { rope_type: 'linear', factor: 4 } },
    },
  ],
  [
    'linear RoPE scaling in the oldest words',
    {
      config: { frequency: (r) => plain(r) / 4 },
      json: { rope_scaling: { type: 'linear', factor: 4 } },
    },
  ],
  [
    'Llama 3 RoPE scaling',
    { config: { frequency: llama3 }, json: { rope_scaling: { rope_type: 'llama3', ...LLAMA3 } } },
  ],
  [
    'Llama 3 RoPE scaling in the newest words',
    {
      config: { frequency: llama3 },
      json: {
        rope_theta: undefined,
        rope_parameters: { rope_type: 'llama3', rope_theta: CONFIG.theta, ...LLAMA3 },
      },
    },
  ],
  [
    'plain RoPE in the newest words',
    {
      json: {
        rope_theta: undefined,
        rope_parameters: { rope_type: 'default', rope_theta: CONFIG.theta },
      },
    },
  ],
  ['a windowed cache', { config: { window: 5 }, load: { kvCache: { window: 5 } } }],
  [
    'a windowed cache with sink tokens',
    {
      config: { window: 7, sinkTokens: 3 },
      load: { kvCache: { window: 7, sinkTokens: 3 } },
    },
  ],
  [
    'positions counted within the cache',
    {
      config: { window: 7, sinkTokens: 3, positions: 'cache' },
      load: { kvCache: { window: 7, sinkTokens: 3, positions: 'cache' } },
    },
  ],
  [
    'positions counted within a cache that holds all',
    { load: { kvCache: { positions: 'cache' } } },
  ],
  ['another epsilon', { config: { eps: 0.1 } }],
];

let folder: string;
beforeAll(() => {
  folder = mkdtempSync(join(tmpdir(), 'gqa-variants-'));
});
afterAll(() => rmSync(folder, { recursive: true }));

function biasTensors(c: ReferenceConfig, tensors: GgufTensor[]): GgufTensor[] {
  const random = new Random(3);
  return tensors
    .filter(({ name }) => c.biased?.some((projection) => name.includes(projection)))
    .map(({ name, shape }) => ({
      name: name.replace('.weight', '.bias'),
      shape: [shape[0]],
      type: 'F32',
      bytes: randomTensor('F32', shape[0], 0.3, random),
    }));
}

test.each(VARIANTS)('%s', async (_, { config, json, load, tied }) => {
  const c: ReferenceConfig = { ...CONFIG, ...config };
  const weights = randomTensors(c, 'F32', 11).filter(
    (t) => tied !== true || t.name !== 'output.weight',
  );
  const tensors = [...weights, ...biasTensors(c, weights)];
  const path = mkdtempSync(join(folder, 'model-'));
  const renamed = tensors.map(({ name, shape, bytes }) => ({
    name: huggingFaceName(name),
    shape,
    dtype: 'F32',
    bytes,
  }));
  writeFileSync(join(path, 'model.safetensors'), writeSafetensors(renamed));
  writeFileSync(join(path, 'config.json'), JSON.stringify({ ...huggingFaceConfig(c), ...json }));

  const values = new Map(
    tensors.map((t) => [t.name, decodeTensor('F32', t.bytes, t.bytes.length / 4)]),
  );
  const value = (name: string) => values.get(name) ?? values.get('token_embd.weight')!;
  const expected = referenceLogits(c, value, IDS);
  const model = await loadModel(path, load);
  const logits = await model.logits(IDS);
  await model.dispose();
  const largest = expected.reduce((m, x) => Math.max(m, Math.abs(x)), 0);
  const error = expected.reduce((m, x, i) => Math.max(m, Math.abs(x - logits[i])), 0) / largest;
  expect(error).toBeLessThan(MODEL_LOGITS);
});
