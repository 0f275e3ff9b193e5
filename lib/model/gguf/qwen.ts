/** 'qwen2' and 'qwen3': names alone differ. */
import type { GgufArchitecture } from './architecture';
import { commonFields, fusedPart, readHeads, rmsAndRope } from './common';
import type { GgufMetadata } from './metadata';
import { LLAMA_NAMES, likeLlama, storedName, type NameTable } from './names';

function qwen(modelType: string, names: NameTable): GgufArchitecture {
  return {
    configJson: (metadata) => ({
      model_type: modelType,
      ...commonFields(metadata),
      ...rmsAndRope(metadata, readHeads(metadata).headDim),
      hidden_act: 'silu',
      use_sliding_window: false,
      attention_bias: metadata.hasTensor('blk.0.attn_q.bias'),
    }),
    locate: (name, metadata) => plainPart(names, name, metadata),
  };
}

/** A tensor that GGUF has as it is, or in one with others. */
export function plainPart(names: NameTable, name: string, metadata: GgufMetadata) {
  const found = storedName(names, name);
  if (found === null) return null;
  const part = metadata.hasTensor(found.stored) ? null : fusedPart(found, metadata);
  return { stored: found.stored, ...part };
}

export const qwen2 = qwen('qwen2', LLAMA_NAMES);

export const qwen3 = qwen(
  'qwen3',
  likeLlama({ 'self_attn.q_norm': 'attn_q_norm', 'self_attn.k_norm': 'attn_k_norm' }),
);
