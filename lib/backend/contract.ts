/**
 * The table of operations that every backend provides: native/ops.h is the same table in C++, js/ its twin.
 *
 * Arguments arrive checked (core/validate.ts): a backend trusts shapes, dtypes, lengths and finiteness of options.
 * Every array is row-major and starts at its first element; element type f16 and bf16 are Uint16Array bits.
 */
import type { FloatData, FloatDType, WeightData, WeightDType } from '../core/dtype';
import type { Precision } from '../core/precision';
import type * as cache from './contract-cache';
import type { TrainingBackend } from './contract-training';
import type { PackedFiles } from './contract-weights';

export * from './contract-cache';
export * from './contract-training';
export * from './contract-weights';

export interface BackendInfo {
  kind: 'native' | 'js';
  /** The addon's instruction set in use, for instance 'avx2', 'neon' or 'scalar'; 'js' without the addon. */
  isa: string;
  /** Threads that share one call, the caller included. */
  threads: number;
  /** Why this backend and not a faster one; names a missing tool or every failed attempt to load. */
  reason: string;
}

/** Keys and values as plain tensors: k [batch, keyTokens, kvHeads, headDim], v [batch, keyTokens, kvHeads, valueDim]. */
export interface TensorSource {
  type: 'tensor';
  k: FloatData;
  v: FloatData;
  dtype: FloatDType;
}

/** A tensor [B|1, Hq|1, Tq, keyTokens]; a stride of 0 broadcasts, strides count elements. */
export interface Broadcast<T> {
  data: T;
  batchStride: number;
  headStride: number;
}

/**
 * out[b,i,h,:] = sum_j softmax_j(score[b,h,i,j]) v[b,j,h/G,:], G = heads / kvHeads.
 *
 * Row i has position p = i + keyTokens - queryTokens. Key j is visible iff
 *   (!causal || j <= p) && (j > p - window || j < sinkTokens) && mask != 0.
 * score = softcap(scale * q.k) + bias + alibi[h] * (j - p), softcap(s) = softcap * tanh(s / softcap) where softcap > 0.
 * sinkLogits[h] joins the softmax denominator (and the LSE) only. A row without visible keys gives zeros, LSE -Infinity.
 */
export interface AttendArgs {
  q: FloatData;
  /** Queries for keys below sinkTokens where those are not q, of its shape and dtype; over a cache only. */
  sinkQ: FloatData | null;
  qDtype: FloatDType;
  out: FloatData;
  outDtype: FloatDType;
  /** [batch, queryTokens, heads], natural log. */
  lse: Float32Array | null;
  batch: number;
  queryTokens: number;
  keyTokens: number;
  heads: number;
  kvHeads: number;
  headDim: number;
  valueDim: number;
  kv: TensorSource | cache.CacheSource;
  causal: boolean;
  /** Keys a row sees, itself included; Infinity for no window. */
  window: number;
  sinkTokens: number;
  scale: number;
  /** 0 for none. */
  softcap: number;
  mask: Broadcast<Uint8Array> | null;
  bias: Broadcast<Float32Array> | null;
  alibiSlopes: Float32Array | null;
  sinkLogits: Float32Array | null;
  /** Attention dropout (training): each weight is zeroed with probability p, the others scaled by 1 / (1 - p). Null for none. */
  dropout: { probability: number; seed: number } | null;
  /** 'fast': queries and weights may be rounded to bf16 where keys and values are, else all be split in two bf16. */
  precision: Precision;
  stats: cache.StatisticsArgs | null;
}

/**
 * The keep decision of attention dropout, the same on every backend: 32-bit arithmetic over a counter,
 *   x = seed; for n of [batch, head, query row i, key j]: x = mix(x ^ n), mix the murmur3 finaliser;
 *   keep iff x >= floor(probability * 2^32).
 */
export interface MergeArgs {
  /** Each [rows, valueDim] f32 or 16 bit, with its LSE [rows]. */
  parts: { out: FloatData; lse: Float32Array }[];
  dtype: FloatDType;
  out: FloatData;
  lse: Float32Array;
  rows: number;
  valueDim: number;
}

/** Weights of a linear layer in the backend's own order. */
export interface PackedWeights {
  /** Output features N and input features K of y = x W^T. */
  readonly rows: number;
  readonly columns: number;
  readonly bytes: number;
  dispose(): void;
}

export interface PackArgs {
  /** [rows, columns] row-major, as checkpoints store it; GGUF's blocks where the dtype is one of theirs. */
  weight: WeightData;
  dtype: WeightDType;
  rows: number;
  /** A multiple of 32 for blocks. */
  columns: number;
}

/** out[m,n] = sum_k x[m,k] W[n,k] + bias[n] */
export interface LinearPart {
  weights: PackedWeights;
  bias: Float32Array | null;
  out: Float32Array;
}

/** One such product of f32 rows. */
export interface LinearArgs extends LinearPart {
  x: Float32Array;
  /** Rows m of x. */
  tokens: number;
  /** Default 'exact'. */
  precision?: Precision;
}

/** See RmsNormArgs and LayerNormArgs. */
export interface FusedNorm {
  kind: 'rms' | 'layer';
  weight: Float32Array;
  /** Of a layer norm; null for none. */
  bias: Float32Array | null;
  eps: number;
}

/**
 * f(x): silu x / (1 + e^-x); gelu x Phi(x), Phi the normal distribution; gelu_tanh x / 2 (1 + tanh(sqrt(2 / pi) (x +
 * 0.044715 x^3))); relu max(0, x). swiglu_oai is of gates only: g / (1 + e^(-1.702 g)) (u + 1) of g = min(gate, 7) and
 * u = up within -7 .. 7.
 */
export type Activation = 'silu' | 'gelu' | 'gelu_tanh' | 'relu' | 'swiglu_oai';

/**
 * One to three products of one x, which is normalised first where `norm` is given. What becomes of them:
 *   write      written to each part's out
 *   add        added to what that holds
 *   gated      of two of one shape: f(first) * second, written to the first part's out
 *   activated  f of each, written to each part's out
 */
export interface FusedLinearArgs {
  x: Float32Array;
  tokens: number;
  norm: FusedNorm | null;
  parts: readonly LinearPart[];
  combine: 'write' | 'add' | 'gated' | 'activated';
  /** f, 'silu' where not given. */
  activation?: Activation;
  precision: Precision;
}

/** out[i,:] = W[ids[i],:], for i < count. */
export interface GatherArgs {
  weights: PackedWeights;
  ids: Int32Array;
  out: Float32Array;
  count: number;
}

/** out[t,:] = x[t,:] / sqrt(mean(x[t,:]^2) + eps) * weight; out may be x. */
export interface RmsNormArgs {
  x: Float32Array;
  weight: Float32Array;
  out: Float32Array;
  tokens: number;
  dim: number;
  eps: number;
}

/** out[t,:] = (x[t,:] - mean) / sqrt(variance + eps) * weight + bias, variance the mean square of x[t,:] - mean; out may be x. */
export interface LayerNormArgs extends RmsNormArgs {
  bias: Float32Array | null;
}

/**
 * Turns the first rotaryDim elements of each head of x [tokens, heads, headDim] in place.
 * Pair r is (r, r + rotaryDim/2) when half-split, (2r, 2r + 1) when interleaved:
 * (a, b) -> (a cos - b sin, a sin + b cos).
 */
export interface RopeArgs {
  x: Float32Array;
  /** [tokens, rotaryDim / 2] each. */
  cos: Float32Array;
  sin: Float32Array;
  tokens: number;
  heads: number;
  headDim: number;
  rotaryDim: number;
  interleaved: boolean;
}

/** out = f(x), or f(x) * second where that is not null, elementwise; out may be either. */
export interface ActivateArgs {
  activation: Activation;
  x: Float32Array;
  second: Float32Array | null;
  out: Float32Array;
  count: number;
}

export interface ConvertArgs {
  from: FloatData;
  fromDtype: FloatDType;
  to: FloatData;
  toDtype: FloatDType;
  count: number;
}

/** Set element 0 to non-zero (Atomics) to stop an async call at its next work item. */
export type CancelFlag = Int32Array;

/** What dot-product instructions multiply: pairs of bf16, or four bytes, unsigned by signed. */
export type DotKind = 'bf16' | 'int8';

export interface Backend extends TrainingBackend {
  readonly info: BackendInfo;
  createArena(layout: cache.ArenaLayout): cache.Arena;
  store(args: cache.StoreArgs): void;
  copyBlock(args: cache.CopyBlockArgs): void;
  moveTokens(args: cache.MoveTokensArgs): void;
  readBlock(args: cache.BlockBytesArgs): void;
  /** The inverse of readBlock; `tokens` is the block's. Bytes are numbers of the dtypes, and may be any. */
  writeBlock(args: cache.BlockBytesArgs): void;
  attend(args: AttendArgs): void;
  attendStep(args: cache.AttendStepArgs): void;
  /** Same result as attend, off the event loop; resolves to false if it was cancelled (out is then undefined in value). */
  attendAsync(args: AttendArgs, cancel: CancelFlag): Promise<boolean>;
  merge(args: MergeArgs): void;
  packWeights(args: PackArgs): PackedWeights;
  /** Null where the backend's packed weights cannot lie in files. */
  readonly packedFiles: PackedFiles | null;
  linear(args: LinearArgs): void;
  fusedLinear(args: FusedLinearArgs): void;
  gather(args: GatherArgs): void;
  rmsNorm(args: RmsNormArgs): void;
  layerNorm(args: LayerNormArgs): void;
  rope(args: RopeArgs): void;
  activate(args: ActivateArgs): void;
  /** x += y, both `count` long. */
  add(x: Float32Array, y: Float32Array, count: number): void;
  /** Round to nearest even; NaN stays NaN, overflow becomes Infinity. */
  convert(args: ConvertArgs): void;
  /** Whether |x| < limit for each of the first `count` elements; false where one is NaN. */
  allBelow(data: FloatData, dtype: FloatDType, count: number, limit: number): boolean;

  /** At most n threads share a call from now on, process-wide (1 <= n); never more than info.threads at start. */
  limitThreads(n: number): void;
  /** Reads every byte of buffer once, on all threads: the caller times it to know the read limit. */
  probeRead(buffer: Uint8Array): void;
  /** Runs independent f32 multiply-adds on all threads; returns the FLOP done (two a multiply-add). */
  probeFma(iterations: number): number;
  /** The same with dot-product instructions; returns the operations done, 0 where the instruction set has none. */
  probeDot(kind: DotKind, iterations: number): number;
  /** The same with AMX tiles of bf16, loaded from the L1 cache; 0 where this machine has none. */
  probeTiles(iterations: number): number;
  /** Seconds from the start of a call until a second thread works on it; null where none comes. */
  probeWake(): number | null;
}
