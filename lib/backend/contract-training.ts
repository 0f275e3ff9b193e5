/**
 * What training adds to the table of operations: the backward twins of the forward ones, the loss and the step. All arrays
 * are f32, row-major, and begin at their first element. A gradient is written unless its comment says that it is added to.
 *
 * Not here, because inference has them: the backward of RoPE is RoPE by -sin; of y = x W^T, gradX = gradY W and
 * gradW = gradY^T x are `linear` over transposed operands.
 */

/**
 * The gradients of attention over plain tensors (see AttendArgs for what is visible and how a score is made):
 *   P_ij = exp(s_ij - lse_i),  gradV_j = sum_i P_ij gradOut_i,  delta_i = gradOut_i . out_i,
 *   gradS_ij = P_ij (gradOut_i . v_j - delta_i), through softcap by 1 - (s / softcap)^2, times scale:
 *   gradQ_i = sum_j gradS_ij k_j,  gradK_j = sum_i gradS_ij q_i; keys and values sum over the query heads of their group.
 * A row that sees no key has no part in any of them. [FlashAttention-2, arXiv:2307.08691, algorithm 2]
 */
export interface AttendBackwardArgs {
  /** [batch, queryTokens, heads, headDim] */
  q: Float32Array;
  /** [batch, keyTokens, kvHeads, headDim] */
  k: Float32Array;
  /** [batch, keyTokens, kvHeads, valueDim] */
  v: Float32Array;
  /** What attend gave for them, [batch, queryTokens, heads, valueDim], and its LSE [batch, queryTokens, heads]. */
  out: Float32Array;
  lse: Float32Array;
  gradOut: Float32Array;
  gradQ: Float32Array;
  gradK: Float32Array;
  gradV: Float32Array;
  batch: number;
  queryTokens: number;
  keyTokens: number;
  heads: number;
  kvHeads: number;
  headDim: number;
  valueDim: number;
  causal: boolean;
  /** Infinity for no window. */
  window: number;
  sinkTokens: number;
  scale: number;
  /** 0 for none. */
  softcap: number;
}

/** out[c, r] = x[r, c]; x and out are apart. */
export interface TransposeArgs {
  x: Float32Array;
  out: Float32Array;
  rows: number;
  columns: number;
}

/**
 * y = x r w, r = 1 / sqrt(mean(x^2) + eps), n = x r:
 *   gradX += r (gradOut w - n mean(gradOut w n)),  gradWeight += sum over tokens of gradOut n.
 */
export interface RmsNormBackwardArgs {
  /** [tokens, dim] */
  x: Float32Array;
  /** [dim] */
  weight: Float32Array;
  gradOut: Float32Array;
  /** Added to: the residual stream goes past the norm. */
  gradX: Float32Array;
  /** Added to, in one order whatever the threads; null where it is not trained. */
  gradWeight: Float32Array | null;
  tokens: number;
  dim: number;
  eps: number;
}

/** y = silu(gate) up: gradUp = gradOut silu(gate), gradGate = gradOut up s (1 + gate (1 - s)), s = sigmoid(gate). */
export interface SwigluBackwardArgs {
  gate: Float32Array;
  up: Float32Array;
  gradOut: Float32Array;
  /** May be gate. */
  gradGate: Float32Array;
  /** May be up. */
  gradUp: Float32Array;
  count: number;
}

/**
 * The loss of rows of logits and its gradient, which is written over the logits:
 *   nll_i = -ln p_i[target_i],  kl_i = sum_c t_i[c] (ln t_i[c] - ln p_i[c]),  p = softmax(logits), t = softmax(teacher),
 *   gradient of row i = weight ((1 - teacherShare) (p - onehot(target)) + teacherShare (p - t)).
 * A row whose target is negative has nll and kl 0, and a gradient of zeros.
 */
export interface CrossEntropyArgs {
  /** [rows, vocab] */
  logits: Float32Array;
  /** [rows, vocab], or null: then teacherShare is 0 and kl is not written. */
  teacher: Float32Array | null;
  /** [rows], each below vocab. */
  targets: Int32Array;
  /** [rows], in nats. */
  nll: Float32Array;
  /** [rows], in nats; null without a teacher. */
  kl: Float32Array | null;
  rows: number;
  vocab: number;
  /** 0 .. 1 */
  teacherShare: number;
  /** Of each row in the gradient: 1 / scored rows of the step for a mean. */
  weight: number;
}

/**
 * One step of AdamW [arXiv:1711.05101], g = gradientScale * gradient:
 *   m = b1 m + (1 - b1) g,  v = b2 v + (1 - b2) g^2,
 *   w -= rate (m / correction1 / (sqrt(v / correction2) + eps) + decay w),  correction = 1 - b^step.
 */
export interface AdamWArgs {
  weight: Float32Array;
  gradient: Float32Array;
  /** First and second moment. */
  m: Float32Array;
  v: Float32Array;
  count: number;
  /** Clipping by norm; 1 for none. */
  gradientScale: number;
  rate: number;
  beta1: number;
  beta2: number;
  eps: number;
  decay: number;
  correction1: number;
  correction2: number;
}

export interface TrainingBackend {
  attendBackward(args: AttendBackwardArgs): void;
  transpose(args: TransposeArgs): void;
  rmsNormBackward(args: RmsNormBackwardArgs): void;
  swigluBackward(args: SwigluBackwardArgs): void;
  crossEntropy(args: CrossEntropyArgs): void;
  adamW(args: AdamWArgs): void;
  /** Sum of x[i]^2 for i < count, in float64, in one order whatever the threads. */
  sumSquares(x: Float32Array, count: number): number;
}
