/** Every weight type of GGUF and safetensors through loadModel, against a float64 forward pass over the same values. */
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { loadModel } from '../../lib';
import {
  decodeTensor,
  Float,
  randomTensor,
  writeGguf,
  type GgufTensor,
  type GgufType,
  type GgufValue,
} from '../support/gguf';
import { encodeSmall } from '../support/numbers';
import { Random } from '../support/random';
import { huggingFaceName, writeSafetensors } from '../support/reference-checkpoint';
import { referenceLogits, type ReferenceConfig } from '../support/reference-llama';
import { MODEL_LOGITS } from '../tolerances';

/** Dims that every block type divides; a head dim that is not hidden / heads. */
const CONFIG: ReferenceConfig = {
  vocab: 40,
  hidden: 256,
  intermediate: 512,
  layers: 2,
  heads: 6,
  kvHeads: 2,
  headDim: 128,
  eps: 1e-5,
  theta: 10000,
  ropePairs: 'neighbours',
};
const IDS = [3, 17, 5, 39, 0, 22, 22];

function matrixShapes(c: ReferenceConfig): Record<string, number[]> {
  const shapes: Record<string, number[]> = {
    'token_embd.weight': [c.vocab, c.hidden],
    'output.weight': [c.vocab, c.hidden],
  };
  for (let layer = 0; layer < c.layers; layer++) {
    const name = (part: string) => `blk.${layer}.${part}.weight`;
    shapes[name('attn_q')] = [c.heads * c.headDim, c.hidden];
    shapes[name('attn_k')] = [c.kvHeads * c.headDim, c.hidden];
    shapes[name('attn_v')] = [c.kvHeads * c.headDim, c.hidden];
    shapes[name('attn_output')] = [c.hidden, c.heads * c.headDim];
    shapes[name('ffn_gate')] = [c.intermediate, c.hidden];
    shapes[name('ffn_up')] = [c.intermediate, c.hidden];
    shapes[name('ffn_down')] = [c.hidden, c.intermediate];
  }
  return shapes;
}

function vectorShapes(c: ReferenceConfig): Record<string, number[]> {
  const names = ['output_norm.weight'];
  for (let layer = 0; layer < c.layers; layer++)
    names.push(`blk.${layer}.attn_norm.weight`, `blk.${layer}.ffn_norm.weight`);
  return Object.fromEntries(names.map((name) => [name, [c.hidden]]));
}

function randomTensors(c: ReferenceConfig, type: GgufType, seed: number): GgufTensor[] {
  const random = new Random(seed);
  const make = (name: string, shape: number[], kind: GgufType, size: number): GgufTensor => ({
    name,
    shape,
    type: kind,
    bytes: randomTensor(
      kind,
      shape.reduce((a, b) => a * b),
      size,
      random,
    ),
  });
  return [
    ...Object.entries(matrixShapes(c)).map(([name, shape]) =>
      make(name, shape, type, name.startsWith('token_embd') ? 1 : 1 / Math.sqrt(shape[1])),
    ),
    ...Object.entries(vectorShapes(c)).map(([name, shape]) => make(name, shape, 'F32', 1)),
  ];
}

function metadata(c: ReferenceConfig): Map<string, GgufValue> {
  return new Map<string, GgufValue>([
    ['general.architecture', 'llama'],
    ['llama.vocab_size', c.vocab],
    ['llama.block_count', c.layers],
    ['llama.context_length', 64],
    ['llama.embedding_length', c.hidden],
    ['llama.feed_forward_length', c.intermediate],
    ['llama.attention.head_count', c.heads],
    ['llama.attention.head_count_kv', c.kvHeads],
    ['llama.attention.key_length', c.headDim],
    ['llama.attention.value_length', c.headDim],
    ['llama.rope.dimension_count', c.headDim],
    ['llama.attention.layer_norm_rms_epsilon', new Float(c.eps)],
    ['llama.rope.freq_base', new Float(c.theta)],
  ]);
}

let folder: string;
beforeAll(() => {
  folder = mkdtempSync(join(tmpdir(), 'gqa-formats-'));
});
afterAll(() => rmSync(folder, { recursive: true }));

async function expectReference(
  path: string,
  c: ReferenceConfig,
  values: Map<string, Float32Array>,
): Promise<void> {
  const expected = referenceLogits(c, (name) => values.get(name)!, IDS);
  const largest = expected.reduce((m, x) => Math.max(m, Math.abs(x)), 0);
  const model = await loadModel(path);
  try {
    const logits = await model.logits(IDS);
    const error = expected.reduce((m, x, i) => Math.max(m, Math.abs(x - logits[i])), 0);
    expect(error / largest).toBeLessThan(MODEL_LOGITS);
    expect(largest).toBeGreaterThan(0.1);
  } finally {
    await model.dispose();
  }
}

test.each(['F32', 'F16', 'BF16', 'Q8_0', 'Q4_0', 'Q4_1', 'Q6_K'] as const)(
  'GGUF of %s',
  async (type) => {
    const tensors = randomTensors(CONFIG, type, 1);
    const path = join(folder, `${type}.gguf`);
    writeFileSync(path, writeGguf({ metadata: metadata(CONFIG), tensors }));
    const values = new Map(
      tensors.map((t) => [
        t.name,
        decodeTensor(
          t.type,
          t.bytes,
          t.shape.reduce((a, b) => a * b),
        ),
      ]),
    );
    await expectReference(path, CONFIG, values);
  },
);

test('GGUF of mixed types, embedding tied to the output', async () => {
  const kinds: GgufType[] = ['Q4_0', 'Q8_0', 'F16', 'Q6_K', 'BF16', 'Q4_1', 'F32'];
  const sources = kinds.map((kind, i) => randomTensors(CONFIG, kind, i));
  const tensors = sources[0]
    .map((_, i) => sources[i % kinds.length][i])
    .filter((t) => t.name !== 'output.weight');
  const path = join(folder, 'mixed.gguf');
  writeFileSync(path, writeGguf({ metadata: metadata(CONFIG), tensors }));
  const values = new Map(
    tensors.map((t) => [
      t.name,
      decodeTensor(
        t.type,
        t.bytes,
        t.shape.reduce((a, b) => a * b),
      ),
    ]),
  );
  values.set('output.weight', values.get('token_embd.weight')!);
  await expectReference(path, CONFIG, values);
});

test.each(['F32', 'F16', 'BF16'] as const)(
  'Hugging Face folder of %s, no tokenizer files',
  async (dtype) => {
    const c = { ...CONFIG, ropePairs: 'halves' as const };
    const tensors = randomTensors(c, dtype, 5);
    const values = new Map(
      tensors.map((t) => [
        t.name,
        decodeTensor(
          t.type,
          t.bytes,
          t.shape.reduce((a, b) => a * b),
        ),
      ]),
    );
    const renamed = tensors.map((t) => ({
      name: huggingFaceName(t.name),
      shape: t.shape,
      dtype,
      bytes: dtype === 'F32' || t.type !== 'F32' ? t.bytes : narrowed(values, t.name, dtype),
    }));
    const path = mkdtempSync(join(folder, 'hf-'));
    writeFileSync(join(path, 'model.safetensors'), writeSafetensors(renamed));
    const config = {
      architectures: ['LlamaForCausalLM'],
      model_type: 'llama',
      vocab_size: c.vocab,
      hidden_size: c.hidden,
      intermediate_size: c.intermediate,
      num_hidden_layers: c.layers,
      num_attention_heads: c.heads,
      num_key_value_heads: c.kvHeads,
      head_dim: c.headDim,
      hidden_act: 'silu',
      rms_norm_eps: c.eps,
      rope_theta: c.theta,
      max_position_embeddings: 64,
      tie_word_embeddings: false,
      bos_token_id: 1,
      eos_token_id: 2,
    };
    writeFileSync(join(path, 'config.json'), JSON.stringify(config));
    await expectReference(path, c, values);
    const model = await loadModel(path);
    expect(model.config).toMatchObject({
      headDim: 128,
      heads: 6,
      kvHeads: 2,
      hiddenSize: 256,
      vocabSize: 40,
    });
    await expect(model.generate('some text', { maxTokens: 1 }).next()).rejects.toMatchObject({
      code: 'NO_TOKENIZER',
    });
    await model.dispose();
  },
);

/** The vector of that name in 16 bits, its rounded values put into `values`. */
function narrowed(
  values: Map<string, Float32Array>,
  name: string,
  dtype: 'F16' | 'BF16',
): Uint8Array {
  const small = dtype === 'F16' ? 'f16' : 'bf16';
  const bits = Uint16Array.from(values.get(name)!, (x) => encodeSmall(x, small));
  const bytes = new Uint8Array(bits.buffer);
  values.set(name, decodeTensor(dtype, bytes, bits.length));
  return bytes;
}
