/** Random checkpoints of the Llama family, a few layers of a few dims, in any weight type. */
import { Float, randomTensor, type GgufTensor, type GgufType, type GgufValue } from './gguf';
import { Random } from './random';
import type { ReferenceConfig } from './reference-llama';

function matrixShapes(c: ReferenceConfig): Record<string, number[]> {
  const shapes: Record<string, number[]> = {
    'token_embd.weight': [c.vocab, c.hidden],
    'output.weight': [c.vocab, c.hidden],
  };
  for (let layer = 0; layer < c.layers; layer++) {
    const name = (part: string) => `blk.${layer}.${part}.weight`;
    shapes[name('attn_q')] = [c.heads * c.headDim, c.hidden];
    const kvHeads = c.layerKvHeads?.[layer] ?? c.kvHeads;
    shapes[name('attn_k')] = [kvHeads * c.headDim, c.hidden];
    shapes[name('attn_v')] = [kvHeads * c.headDim, c.hidden];
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

/** Matrices of `type`, vectors of F32, by their GGUF names. */
export function randomTensors(c: ReferenceConfig, type: GgufType, seed: number): GgufTensor[] {
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

/** What a GGUF says about it, without a tokenizer. */
export function ggufMetadata(c: ReferenceConfig): Map<string, GgufValue> {
  return new Map<string, GgufValue>([
    ['general.architecture', 'llama'],
    ['llama.vocab_size', c.vocab],
    ['llama.block_count', c.layers],
    ['llama.context_length', 64],
    ['llama.embedding_length', c.hidden],
    ['llama.feed_forward_length', c.intermediate],
    ['llama.attention.head_count', c.heads],
    [
      'llama.attention.head_count_kv',
      c.layerKvHeads === undefined ? c.kvHeads : [...c.layerKvHeads],
    ],
    ['llama.attention.key_length', c.headDim],
    ['llama.attention.value_length', c.headDim],
    ['llama.rope.dimension_count', c.headDim],
    ['llama.attention.layer_norm_rms_epsilon', new Float(c.eps)],
    ['llama.rope.freq_base', new Float(c.theta)],
  ]);
}

/** config.json */
export function huggingFaceConfig(c: ReferenceConfig): Record<string, unknown> {
  return {
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
}
