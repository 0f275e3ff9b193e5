/** Opens a checkpoint of the Llama family for the reference forward pass: a GGUF or a Hugging Face folder. */
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { decodeTensor, readGguf, type GgufType } from './gguf';
import type { ReferenceConfig, ReferenceWeights } from './reference-llama';

export interface ReferenceCheckpoint {
  config: ReferenceConfig;
  weights: ReferenceWeights;
}

export function openCheckpoint(path: string): ReferenceCheckpoint {
  return path.endsWith('.gguf') ? openGguf(path) : openFolder(path);
}

function openGguf(path: string): ReferenceCheckpoint {
  const { metadata, tensors } = readGguf(path);
  const number = (key: string) => metadata.get(`llama.${key}`) as number;
  const find = (name: string) => tensors.find((t) => t.name === name);
  const heads = number('attention.head_count');
  return {
    config: {
      vocab: find('token_embd.weight')!.shape[0],
      hidden: number('embedding_length'),
      intermediate: number('feed_forward_length'),
      layers: number('block_count'),
      heads,
      kvHeads: number('attention.head_count_kv'),
      headDim: find('blk.0.attn_q.weight')!.shape[0] / heads,
      eps: number('attention.layer_norm_rms_epsilon'),
      theta: number('rope.freq_base'),
      ropePairs: 'neighbours',
    },
    weights: (name) => {
      const t = find(name) ?? find('token_embd.weight')!;
      return decodeTensor(
        t.type,
        t.bytes,
        t.shape.reduce((a, b) => a * b),
      );
    },
  };
}

/** GGUF's names of tensors as Hugging Face's, replaced in this order. */
const HUGGING_FACE_NAMES: readonly [RegExp, string][] = [
  [/^token_embd/, 'model.embed_tokens'],
  [/^output_norm/, 'model.norm'],
  [/^output/, 'lm_head'],
  [/attn_norm/, 'input_layernorm'],
  [/ffn_norm/, 'post_attention_layernorm'],
  [/attn_output/, 'self_attn.o_proj'],
  [/attn_([qkv])/, 'self_attn.$1_proj'],
  [/ffn_(gate|up|down)/, 'mlp.$1_proj'],
  [/^blk/, 'model.layers'],
];

export function huggingFaceName(ggufName: string): string {
  return HUGGING_FACE_NAMES.reduce((name, [from, to]) => name.replace(from, to), ggufName);
}

function openFolder(path: string): ReferenceCheckpoint {
  const json = JSON.parse(readFileSync(join(path, 'config.json'), 'utf8'));
  const file = readFileSync(join(path, 'model.safetensors'));
  const headerBytes = Number(file.readBigUInt64LE(0));
  const header = JSON.parse(file.toString('utf8', 8, 8 + headerBytes));
  return {
    config: {
      vocab: json.vocab_size,
      hidden: json.hidden_size,
      intermediate: json.intermediate_size,
      layers: json.num_hidden_layers,
      heads: json.num_attention_heads,
      kvHeads: json.num_key_value_heads,
      headDim: json.head_dim,
      eps: json.rms_norm_eps,
      theta: json.rope_theta,
      ropePairs: 'halves',
    },
    weights: (name) => {
      const { dtype, shape, data_offsets } =
        header[huggingFaceName(name)] ?? header['model.embed_tokens.weight'];
      const [from, to] = (data_offsets as number[]).map((at) => 8 + headerBytes + at);
      const count = (shape as number[]).reduce((a, b) => a * b);
      return decodeTensor(dtype as GgufType, file.subarray(from, to), count);
    },
  };
}

export interface SafetensorsEntry {
  name: string;
  shape: number[];
  dtype: string;
  bytes: Uint8Array;
}

export function writeSafetensors(tensors: SafetensorsEntry[]): Buffer {
  const header: Record<string, unknown> = {};
  let at = 0;
  for (const { name, shape, dtype, bytes } of tensors) {
    header[name] = { dtype, shape, data_offsets: [at, (at += bytes.length)] };
  }
  const json = Buffer.from(JSON.stringify(header));
  const length = Buffer.from(BigUint64Array.of(BigInt(json.length)).buffer);
  return Buffer.concat([length, json, ...tensors.map((t) => t.bytes)]);
}
