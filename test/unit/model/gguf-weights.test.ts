/** What the GGUF files of the goldens do not have: old ways to lay tensors out, and tensors of wrong shapes. */
import { GqaError } from '../../../lib/core/errors';
import { GgufFile } from '../../../lib/format/gguf';
import { ggufArchitecture } from '../../../lib/model/gguf';
import { GgufMetadata } from '../../../lib/model/gguf/metadata';
import { GgufWeights } from '../../../lib/model/gguf/weights';
import {
  entry,
  floats,
  GGUF_TYPE,
  ggufBytes,
  temporaryFolder,
  text,
  u32,
  write,
} from '../format/build-files';

const path = temporaryFolder();

/** Elements count from `first`; dims row-major. */
type Tensors = Record<string, { dims: number[]; first?: number }>;
interface Opened {
  weights: GgufWeights;
  json: Record<string, unknown>;
}

function open<T>(
  architecture: string,
  metadata: Record<string, number | number[]>,
  tensors: Tensors,
  use: (opened: Opened) => T,
): T {
  const entries = Object.entries(metadata).map(([name, value]) => {
    const key = `${architecture}.${name}`;
    if (Array.isArray(value)) {
      const items = [u32(GGUF_TYPE.u32), u32(value.length), u32(0), ...value.map(u32)];
      return entry(key, GGUF_TYPE.array, Buffer.concat(items));
    }
    return Number.isInteger(value)
      ? entry(key, GGUF_TYPE.u32, u32(value))
      : entry(key, GGUF_TYPE.f32, floats([value]));
  });
  entries.push(entry('general.architecture', GGUF_TYPE.string, text(architecture)));
  const stored = Object.entries(tensors).map(([name, { dims, first = 0 }]) => {
    const size = dims.reduce((a, b) => a * b);
    const data = floats(Array.from({ length: size }, (_, i) => first + i));
    return { name, dims: [...dims].reverse(), type: 0, data };
  });
  const file = new GgufFile(write(path('x.gguf'), ggufBytes({ entries, tensors: stored })));
  try {
    const found = new GgufMetadata(file);
    const described = ggufArchitecture(found);
    return use({ weights: new GgufWeights(found, described), json: described.configJson(found) });
  } finally {
    file.close();
  }
}

const SIZES = {
  block_count: 1,
  context_length: 64,
  embedding_length: 8,
  feed_forward_length: 4,
  vocab_size: 5,
  'attention.head_count': 2,
  'attention.head_count_kv': 1,
  'attention.layer_norm_rms_epsilon': 2 ** -17,
};

function codeOf(run: () => unknown): string {
  try {
    run();
  } catch (error) {
    if (error instanceof GqaError) return error.code;
    throw error;
  }
  return 'none';
}

describe('experts', () => {
  const EXPERTS = { ...SIZES, expert_count: 2, expert_used_count: 1 };
  const name = (expert: number, part: string) =>
    `model.layers.0.block_sparse_moe.experts.${expert}.${part}.weight`;

  it('are parts of a stack', () => {
    const tensors = { 'blk.0.ffn_gate_exps.weight': { dims: [2, 4, 8] } };
    open('llama', EXPERTS, tensors, ({ weights, json }) => {
      expect(json).toMatchObject({ model_type: 'mixtral', num_local_experts: 2 });
      const second = weights.load(name(1, 'w1'), [4, 8]);
      expect([...second.data]).toEqual(Array.from({ length: 32 }, (_, i) => 32 + i));
      expect(second.shape).toEqual([4, 8]);
      expect(weights.has(name(0, 'w2'))).toBe(false);
      for (const [expert, shape] of [
        [2, [4, 8]],
        [0, [4, 7]],
        [1, [5, 8]],
      ] as const) {
        expect(codeOf(() => weights.load(name(expert, 'w1'), shape))).toBe('INVALID_FILE');
      }
    });
  });

  it('are tensors of their own in the oldest files', () => {
    const tensors = { 'blk.0.ffn_down.1.weight': { dims: [8, 4], first: 5 } };
    open('llama', EXPERTS, tensors, ({ weights }) => {
      expect(weights.load(name(1, 'w2'), [8, 4]).data[0]).toBe(5);
      expect(codeOf(() => weights.load(name(0, 'w2'), [8, 4]))).toBe('INVALID_FILE');
    });
  });
});

describe('fused projections', () => {
  const tensors = {
    'blk.0.attn_qkv.weight': { dims: [16, 8] },
    'blk.0.attn_qkv.bias': { dims: [16] },
  };
  const name = (role: string, kind = 'weight') => `model.layers.0.self_attn.${role}_proj.${kind}`;

  it('are cut, of Llama in the order of its rows', () => {
    open('qwen2', SIZES, tensors, ({ weights, json }) => {
      expect(json).toMatchObject({ head_dim: 4, num_key_value_heads: 1 });
      expect(weights.load(name('q'), [8, 8]).data[0]).toBe(0);
      expect(weights.load(name('k'), [4, 8]).data[0]).toBe(64);
      expect(weights.load(name('v'), [4, 8]).data[0]).toBe(96);
      expect([...weights.load(name('k', 'bias'), [4]).data]).toEqual([8, 9, 10, 11]);
      expect(codeOf(() => weights.load(name('v'), [5, 8]))).toBe('INVALID_FILE');
    });
    open('llama', SIZES, tensors, ({ weights }) => {
      // Neighbours turn together in the file: rows 0, 2, 1, 3 of a head.
      expect([...weights.load(name('k', 'bias'), [4]).data]).toEqual([8, 10, 9, 11]);
      expect([...weights.load(name('v', 'bias'), [4]).data]).toEqual([12, 13, 14, 15]);
    });
  });
});

describe('gpt-oss', () => {
  const OSS = {
    ...SIZES,
    expert_count: 2,
    expert_used_count: 1,
    expert_feed_forward_length: 3,
    'attention.sliding_window': 4,
  };
  const name = 'model.layers.0.mlp.experts.gate_up_proj';

  it('needs gate and up of the same shape', () => {
    const gate = { 'blk.0.ffn_gate_exps.weight': { dims: [2, 3, 8] } };
    open('gpt-oss', OSS, gate, ({ weights }) => {
      expect(weights.has(name)).toBe(false);
      expect(codeOf(() => weights.load(name, [2, 8, 6]))).toBe('INVALID_FILE');
    });
    const both = { ...gate, 'blk.0.ffn_up_exps.weight': { dims: [2, 4, 8] } };
    open('gpt-oss', OSS, both, ({ weights }) => {
      expect(codeOf(() => weights.load(name, [2, 8, 6]))).toBe('INVALID_FILE');
    });
  });
});

describe('configs', () => {
  it('have windows by a period, by a list, and none', () => {
    const types = (architecture: string, more: Record<string, number | number[]>) =>
      open(architecture, { ...SIZES, block_count: 4, ...more }, {}, ({ json }) =>
        (json.layer_types as string[]).map((type) => type[0]).join(''),
      );
    expect(types('gemma2', {})).toBe('sfsf');
    expect(types('gemma2', { 'attention.sliding_window_pattern': 3 })).toBe('ssfs');
    expect(types('gemma2', { 'attention.sliding_window_pattern': [1, 1, 0, 0] })).toBe('ssff');
    expect(types('gemma3', { 'attention.sliding_window': 8 })).toBe('ssss');
    expect(types('gemma3', {})).toBe('ffff');
    expect(codeOf(() => types('gemma2', { 'attention.sliding_window_pattern': [1] }))).toBe(
      'INVALID_FILE',
    );
  });

  it('scale the queries of the largest Gemma by hidden / heads', () => {
    const scalar = (layers: number) =>
      open(
        'gemma2',
        { ...SIZES, block_count: layers, 'attention.key_length': 6, 'attention.value_length': 6 },
        {},
        ({ json }) => json.query_pre_attn_scalar,
      );
    expect([scalar(26), scalar(46)]).toEqual([6, 4]);
  });

  it.each<[string, string, Record<string, number | number[]>, string]>([
    [
      'StarCoder with many KV heads',
      'starcoder',
      { 'attention.head_count_kv': 2, 'attention.layer_norm_epsilon': 1e-5 },
      'UNSUPPORTED_MODEL',
    ],
    ['Falcon without an epsilon', 'falcon', {}, 'INVALID_FILE'],
    [
      'more of a head turned than it has',
      'gptneox',
      { 'rope.dimension_count': 6, 'attention.layer_norm_epsilon': 1e-5 },
      'INVALID_FILE',
    ],
    ['experts, and not how many are used', 'llama', { expert_count: 4 }, 'INVALID_FILE'],
  ])('refuse %s', (_, architecture, more, code) => {
    expect(codeOf(() => open(architecture, { ...SIZES, ...more }, {}, () => undefined))).toBe(code);
  });
});
