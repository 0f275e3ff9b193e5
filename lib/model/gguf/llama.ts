/**
 * 'llama': Llama, Mistral (with a window) and Mixtral (with experts). Rows of Q and K are in the order of interleaved
 * RoPE, which is undone.
 */
import type { JsonObject } from '../json-fields';
import type { GgufArchitecture, StoredPart } from './architecture';
import { commonFields, fusedPart, readHeads, rmsAndRope } from './common';
import type { GgufMetadata } from './metadata';
import { LLAMA_NAMES, storedName } from './names';
import { halfSplitRow } from './rows';

const EXPERT =
  /^model\.layers\.(\d+)\.block_sparse_moe\.(?:gate|experts\.(\d+)\.(w[123]))\.weight$/;
const EXPERT_PARTS: Readonly<Record<string, string>> = {
  w1: 'ffn_gate',
  w2: 'ffn_down',
  w3: 'ffn_up',
};

export const llama: GgufArchitecture = {
  configJson(metadata) {
    const { headDim } = readHeads(metadata);
    const experts = metadata.integer('expert_count', 0, 0);
    const window = metadata.integer('attention.sliding_window', 0, 0);
    return {
      model_type: experts > 0 ? 'mixtral' : window > 0 ? 'mistral' : 'llama',
      ...commonFields(metadata),
      ...rmsAndRope(metadata, headDim),
      ...(window > 0 ? { sliding_window: window } : {}),
      ...(experts > 0 ? expertFields(metadata, experts) : {}),
      hidden_act: 'silu',
      attention_bias: metadata.hasTensor('blk.0.attn_q.bias'),
      mlp_bias: metadata.hasTensor('blk.0.ffn_gate.bias'),
    };
  },

  locate(name, metadata) {
    const found = storedName(LLAMA_NAMES, name);
    if (found === null) return locateExpert(name, metadata);
    const part = metadata.hasTensor(found.stored) ? null : fusedPart(found, metadata);
    const turned = found.storedPart === 'attn_q' || found.storedPart === 'attn_k';
    const rowOf = turned ? halfSplitRow(readHeads(metadata).headDim) : undefined;
    return { stored: found.stored, ...part, rowOf };
  },
};

function expertFields(metadata: GgufMetadata, experts: number): JsonObject {
  return {
    num_local_experts: experts,
    num_experts_per_tok: metadata.integer('expert_used_count'),
  };
}

/** Experts of a layer are one stack of matrices; the oldest files have a tensor for each. */
function locateExpert(name: string, metadata: GgufMetadata): StoredPart | null {
  const match = EXPERT.exec(name);
  if (match === null) return null;
  const [, layer, expert, part] = match;
  if (expert === undefined) return { stored: `blk.${layer}.ffn_gate_inp.weight` };
  const word = EXPERT_PARTS[part];
  const stacked = `blk.${layer}.${word}_exps.weight`;
  const shape = metadata.shapeOf(stacked);
  if (shape === undefined) return { stored: `blk.${layer}.${word}.${expert}.weight` };
  return { stored: stacked, first: Number(expert) * shape[shape.length - 2] };
}
