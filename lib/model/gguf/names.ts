/** Names of tensors: Hugging Face's to GGUF's and back, by a table for each architecture. */

export interface NameTable {
  /** What stands before the number of a layer: 'model.layers.' */
  layers: string;
  /** Of what the model has once, without '.weight': { 'model.norm': 'output_norm' }. */
  model: Readonly<Record<string, string>>;
  /** Of what each layer has: { 'self_attn.q_proj': 'attn_q' }. */
  layer: Readonly<Record<string, string>>;
}

export interface TensorName {
  /** Null for what the model has once. */
  layer: number | null;
  /** Hugging Face's and GGUF's words between the layer and the kind. */
  part: string;
  storedPart: string;
  kind: 'weight' | 'bias';
  /** The whole name in the file: 'blk.3.attn_q.weight'. */
  stored: string;
}

/** Null for a name that is not in the table. */
export function storedName(table: NameTable, name: string): TensorName | null {
  const match = /^(.+?)\.(weight|bias)$/.exec(name);
  if (match === null) return null;
  const kind = match[2] as TensorName['kind'];
  const [, layer, part] = splitLayer(match[1], table.layers);
  const words = layer === null ? table.model : table.layer;
  if (!Object.hasOwn(words, part)) return null;
  const storedPart = words[part];
  const prefix = layer === null ? '' : `blk.${layer}.`;
  return { layer, part, storedPart, kind, stored: `${prefix}${storedPart}.${kind}` };
}

/** GGUF's name of a tensor of Llama's; a name that GGUF has no word for stays as it is. */
export function ggufName(name: string): string {
  return storedName(LLAMA_NAMES, name)?.stored ?? name;
}

/** The inverse of ggufName. */
export function huggingFaceName(stored: string): string {
  const match = /^(.+)\.(weight|bias)$/.exec(stored);
  if (match === null) return stored;
  const [, layer, storedPart] = splitLayer(match[1], 'blk.');
  const words = Object.entries(layer === null ? LLAMA_NAMES.model : LLAMA_NAMES.layer);
  const part = words.find(([, word]) => word === storedPart)?.[0];
  if (part === undefined) return stored;
  return `${layer === null ? '' : `${LLAMA_NAMES.layers}${layer}.`}${part}.${match[2]}`;
}

function splitLayer(name: string, prefix: string): [string, number | null, string] {
  const rest = name.startsWith(prefix) ? name.slice(prefix.length) : '';
  const match = /^(\d+)\.(.+)$/.exec(rest);
  return match === null ? [name, null, name] : [name, Number(match[1]), match[2]];
}

/** What the decoders after Llama's pattern have in common. */
export const LLAMA_NAMES: NameTable = {
  layers: 'model.layers.',
  model: {
    'model.embed_tokens': 'token_embd',
    'model.norm': 'output_norm',
    lm_head: 'output',
  },
  layer: {
    input_layernorm: 'attn_norm',
    'self_attn.q_proj': 'attn_q',
    'self_attn.k_proj': 'attn_k',
    'self_attn.v_proj': 'attn_v',
    'self_attn.o_proj': 'attn_output',
    post_attention_layernorm: 'ffn_norm',
    'mlp.gate_proj': 'ffn_gate',
    'mlp.up_proj': 'ffn_up',
    'mlp.down_proj': 'ffn_down',
  },
};

/** Llama's table with other words for some parts of a layer. */
export function likeLlama(layer: Readonly<Record<string, string>>): NameTable {
  return { ...LLAMA_NAMES, layer: { ...LLAMA_NAMES.layer, ...layer } };
}
