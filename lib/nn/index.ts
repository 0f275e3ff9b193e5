/** Layers, and the attention modules built from them. */
export type { AttentionForwardOptions, AttentionInputs } from './attention-call';
export type { GroupedQueryAttentionOptions } from './attention-options';
export type { AttentionWeights } from './attention-weights';
export { Embedding } from './embedding';
export {
  GroupedQueryAttention,
  MultiHeadAttention,
  MultiQueryAttention,
} from './grouped-query-attention';
export type { BlockWeights, MatrixWeights, Weights } from './inputs';
export { Linear } from './linear';
export { RmsNorm } from './rms-norm';
export { Rope } from './rope';
export type { RopeOptions, RopeScaling } from './rope';
