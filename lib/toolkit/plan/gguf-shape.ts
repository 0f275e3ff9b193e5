/** ModelShape from the metadata and tensors of a GGUF file, of any architecture that the planner knows. */
import type { GgufFile } from '../../format/gguf';
import { JsonFields, unsupported } from '../../model/json-fields';
import { ARCHITECTURES, checkedShape, traitsOf } from './architectures';
import type { ModelShape } from './shape';

/** GGUF's name of an architecture to config.json's, where they differ. */
const NAMES: Readonly<Record<string, string>> = {
  gemma3: 'gemma3_text',
  starcoder: 'gpt_bigcode',
  'gpt-oss': 'gpt_oss',
};

/** One number for all layers, or a list of each layer's. */
function perLayer(metadata: JsonFields, key: string, layers: number, fallback?: number): number[] {
  const value = metadata.raw(key);
  if (!Array.isArray(value)) {
    return new Array<number>(layers).fill(metadata.integer(key, fallback));
  }
  if (value.length !== layers) throw metadata.wrong(key, `a list of ${layers} numbers`, value);
  const named = new JsonFields(key, { ...value });
  return value.map((_, layer) => named.integer(String(layer)));
}

/** The same in every layer. */
function same(metadata: JsonFields, key: string, layers: number): number {
  const values = perLayer(metadata, key, layers);
  if (values.every((value) => value === values[0])) return values[0];
  throw unsupported(key, 'the same in every layer', 'different by layer');
}

/** @throws GqaError INVALID_FILE, UNSUPPORTED_MODEL */
export function shapeFromGguf(name: string, file: GgufFile): ModelShape {
  const metadata = new JsonFields(file.path, Object.fromEntries(file.metadata));
  const own = metadata.text('general.architecture') ?? '';
  const architecture = Object.hasOwn(NAMES, own) ? NAMES[own] : own;
  if (!ARCHITECTURES.includes(architecture)) {
    throw unsupported('general.architecture', ARCHITECTURES.join(', '), `'${own.slice(0, 80)}'`);
  }
  const parts = metadata.integer('split.count', 1, 0);
  if (parts > 1) throw unsupported('split.count', '1: a model in one file', String(parts));
  const { tensors } = file;
  const has = (...names: string[]): boolean => names.some((tensor) => tensors.has(tensor));
  const traits = traitsOf(architecture);
  const integer = (key: string, fallback?: number): number =>
    metadata.integer(`${own}.${key}`, fallback);
  const hiddenSize = integer('embedding_length');
  const layers = integer('block_count');
  const heads = same(metadata, `${own}.attention.head_count`, layers);
  const contextLength = integer('context_length');
  const count = metadata.integer(`${own}.expert_count`, 0, 0);
  const width = same(metadata, `${own}.feed_forward_length`, layers);
  const experts = count > 1 ? { count, active: integer('expert_used_count') } : null;
  const windowKey = `${own}.attention.sliding_window`;
  // Some files write 0 for none.
  const window = metadata.integer(windowKey, 0, 0) || Infinity;
  const none = new JsonFields(file.path, {});
  return checkedShape({
    ...{ name, architecture, hiddenSize, layers, heads, contextLength },
    vocabSize: tensors.get('token_embd.weight')?.shape[0] ?? integer('vocab_size'),
    headDim: integer('attention.key_length', hiddenSize / heads),
    layerKvHeads: perLayer(metadata, `${own}.attention.head_count_kv`, layers, heads),
    layerWindows: Array.from({ length: layers }, (_, layer) =>
      window !== Infinity && traits.windowed(none, layer) ? window : Infinity,
    ),
    ffn: {
      gated: traits.gated,
      width: experts === null ? width : integer('expert_feed_forward_length', width),
      experts,
    },
    tiedEmbeddings: !has('output.weight'),
    learnedPositions: has('position_embd.weight') ? contextLength : 0,
    bias: {
      qkv: has('blk.0.attn_q.bias', 'blk.0.attn_qkv.bias'),
      output: has('blk.0.attn_output.bias'),
      ffn: has('blk.0.ffn_up.bias', 'blk.0.ffn_up_exps.bias'),
      router: has('blk.0.ffn_gate_inp.bias'),
    },
    norms: {
      perLayer: architecture === 'falcon' && !has('blk.0.attn_norm_2.weight') ? 1 : traits.norms,
      bias: traits.layerNorm,
      perHead: has('blk.0.attn_q_norm.weight'),
    },
    sinkLogits: traits.sinkLogits,
  });
}
