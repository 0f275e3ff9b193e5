/** The tensors of the Llama architecture, by Hugging Face's names, and in what order models list them. */
import type { ModelConfig } from '../types';

/** Every tensor that a model of this config must have, with its shape. */
export function expectedTensors(config: ModelConfig): Map<string, readonly number[]> {
  const { hiddenSize, vocabSize } = config;
  const shapes = new Map<string, readonly number[]>();
  shapes.set('model.embed_tokens.weight', [vocabSize, hiddenSize]);
  for (let layer = 0; layer < config.layers; layer++) addLayer(shapes, config, layer);
  shapes.set('model.norm.weight', [hiddenSize]);
  if (!config.tiedEmbeddings) shapes.set('lm_head.weight', [vocabSize, hiddenSize]);
  return shapes;
}

function addLayer(
  shapes: Map<string, readonly number[]>,
  config: ModelConfig,
  layer: number,
): void {
  const { hiddenSize, intermediateSize, heads, headDim, attentionBias, mlpBias } = config;
  const prefix = `model.layers.${layer}.`;
  const linear = (name: string, out: number, input: number, bias: boolean): void => {
    shapes.set(`${prefix}${name}.weight`, [out, input]);
    if (bias) shapes.set(`${prefix}${name}.bias`, [out]);
  };
  const kvSize = config.layerKvHeads[layer] * headDim;
  shapes.set(`${prefix}input_layernorm.weight`, [hiddenSize]);
  linear('self_attn.q_proj', heads * headDim, hiddenSize, attentionBias);
  linear('self_attn.k_proj', kvSize, hiddenSize, attentionBias);
  linear('self_attn.v_proj', kvSize, hiddenSize, attentionBias);
  linear('self_attn.o_proj', hiddenSize, heads * headDim, attentionBias);
  shapes.set(`${prefix}post_attention_layernorm.weight`, [hiddenSize]);
  linear('mlp.gate_proj', intermediateSize, hiddenSize, mlpBias);
  linear('mlp.up_proj', intermediateSize, hiddenSize, mlpBias);
  linear('mlp.down_proj', hiddenSize, intermediateSize, mlpBias);
}

/** How many heads the rows of a Q or K projection are, whose order RoPE decides; null for all other tensors. */
export function rotatedHeads(name: string, config: ModelConfig): number | null {
  const match = /^model\.layers\.(\d+)\.self_attn\.([qk])_proj\./.exec(name);
  if (match === null) return null;
  return match[2] === 'q' ? config.heads : config.layerKvHeads[Number(match[1])];
}
