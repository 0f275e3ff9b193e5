/** Layers, and the modules built from them. */
export { ACTIVATIONS } from './activation';
export type { Activation } from './activation';
export type { AttentionForwardOptions, AttentionInputs } from './attention-call';
export { AttentionLayer } from './attention-layer';
export type { AttentionParts } from './attention-layer';
export type { GroupedQueryAttentionOptions } from './attention-options';
export type { AttentionWeights } from './attention-weights';
export { Embedding } from './embedding';
export type { Norm } from './fused-linear';
export {
  GroupedQueryAttention,
  MultiHeadAttention,
  MultiQueryAttention,
} from './grouped-query-attention';
export type { BlockWeights, MatrixWeights, Weights } from './inputs';
export { LayerNorm } from './layer-norm';
export { Linear } from './linear';
export { GatedMlp, Mlp } from './mlp';
export type { GatedMlpParts, MlpParts } from './mlp';
export { MoE } from './moe';
export type { Expert, MoEParts } from './moe';
export { RmsNorm } from './rms-norm';
export { Rope } from './rope';
export type { RopeOptions, RopeScaling } from './rope';
export { Scratch } from './scratch';
export type { Sublayer, Tokens } from './sublayer';
export { ParallelBlock, TransformerBlock } from './transformer-block';
export type { Block } from './transformer-block';
