/** What the addon exports (native/binding/addon.cc), as types; native.ts loads it. */
import type { FloatData } from '../core/dtype';
import type { CancelFlag } from './contract';
import type { Status } from './parameters';

/** An external value that owns pages of memory; freed by `release` or by the garbage collector. */
export type Handle = object;

/** q, out, then k and v or block ids and arena, then whatever the flags announce; the tail is block ids and arena too. */
export type AttendArrays = [
  q: FloatData,
  out: FloatData,
  kOrIds: FloatData | Int32Array,
  vOrArena: FloatData | Handle,
  lse: Float32Array | null,
  mask: Uint8Array | null,
  bias: Float32Array | null,
  alibiSlopes: Float32Array | null,
  sinkLogits: Float32Array | null,
  sinkQ: FloatData | null,
  tailIds: Int32Array | null,
  tailArena: Handle | null,
  statistics: Float32Array | null,
];

/** As AttendArrays; what a plan has lies where a step has nothing else. */
export type StepArrays = [
  q: FloatData,
  out: FloatData,
  ids: Int32Array,
  arena: Handle,
  lse: Float32Array | null,
  entries: Float64Array,
  trees: Int32Array,
  alibiSlopes: Float32Array | null,
  sinkLogits: Float32Array | null,
  sinkQ: FloatData | null,
  shares: Float64Array,
  tailArena: Handle | null,
  statistics: Float32Array | null,
  members: Int32Array,
];

type Nullable<T> = T | null;

/** x, the weight of its norm, then up to three parts, then the bias of the norm; of a gate's second part `out` is not used. */
export type LinearArrays = [
  x: Float32Array,
  norm: Nullable<Float32Array>,
  weights0: Handle,
  out0: Float32Array,
  bias0: Nullable<Float32Array>,
  weights1?: Nullable<Handle>,
  out1?: Nullable<Float32Array>,
  bias1?: Nullable<Float32Array>,
  weights2?: Nullable<Handle>,
  out2?: Nullable<Float32Array>,
  bias2?: Nullable<Float32Array>,
  normBias?: Nullable<Float32Array>,
];

export type AttendBackwardArrays = [
  q: Float32Array,
  k: Float32Array,
  v: Float32Array,
  out: Float32Array,
  lse: Float32Array,
  gradOut: Float32Array,
  gradQ: Float32Array,
  gradK: Float32Array,
  gradV: Float32Array,
];

export interface AddonInfo {
  isa: string;
  /** Threads that share a call when nothing limits them. */
  threads: number;
  /** Why this instruction set and this thread count. */
  reason: string;
  /** What was forced and cannot be had; empty if nothing. */
  error: string;
}

/** Each operation leaves its Status in parameters[0]. */
export interface Addon {
  parameterVersion: number;
  parameters: Float64Array;
  info(): AddonInfo;
  threads(): number;
  limitThreads(threads: number): void;

  createArena(): Handle;
  packWeights(weight: FloatData | Uint8Array): Handle;
  /** The file in memory, or why it is not. */
  mapFile(path: string): { handle: Handle; bytes: number; shared: boolean } | string;
  /** Undefined where the call was refused. */
  mappedWeights(file: Handle, offset: number): Handle | undefined;
  readWeights(weights: Handle, to: Uint8Array, from: number): void;
  checksumWeights(weights: Handle): bigint;
  release(handle: Handle): void;

  store(k: FloatData, v: FloatData, ids: Int32Array, arena: Handle): void;
  copyBlock(from: Handle, to: Handle): void;
  moveTokens(from: Int32Array, ids: Int32Array, arena: Handle): void;
  readBlock(bytes: Uint8Array, arena: Handle): void;
  writeBlock(bytes: Uint8Array, arena: Handle): void;
  attend(...arrays: AttendArrays): void;
  /** Undefined where the call was refused. */
  attendAsync(...arrays: [...AttendArrays, CancelFlag]): Promise<Status> | undefined;
  attendStep(...arrays: StepArrays): void;
  merge(outs: FloatData[], lses: Float32Array[], out: FloatData, lse: Float32Array): void;
  linear(...arrays: LinearArrays): void;
  gather(weights: Handle, ids: Int32Array, out: Float32Array): void;
  rmsNorm(x: Float32Array, weight: Float32Array, out: Float32Array): void;
  layerNorm(
    x: Float32Array,
    weight: Float32Array,
    out: Float32Array,
    bias: Nullable<Float32Array>,
  ): void;
  rope(x: Float32Array, cos: Float32Array, sin: Float32Array): void;
  activate(x: Float32Array, second: Nullable<Float32Array>, out: Float32Array): void;
  add(x: Float32Array, y: Float32Array): void;
  convert(from: FloatData, to: FloatData): void;
  /** The answer is left in CountSlot.holds. */
  allBelow(data: FloatData): void;
  attendBackward(...arrays: AttendBackwardArrays): void;
  transpose(x: Float32Array, out: Float32Array): void;
  rmsNormBackward(
    x: Float32Array,
    weight: Float32Array,
    gradOut: Float32Array,
    gradX: Float32Array,
    gradWeight: Nullable<Float32Array>,
  ): void;
  swigluBackward(
    gate: Float32Array,
    up: Float32Array,
    gradOut: Float32Array,
    gradGate: Float32Array,
    gradUp: Float32Array,
  ): void;
  crossEntropy(
    logits: Float32Array,
    teacher: Nullable<Float32Array>,
    targets: Int32Array,
    nll: Float32Array,
    kl: Nullable<Float32Array>,
  ): void;
  adamW(weight: Float32Array, gradient: Float32Array, m: Float32Array, v: Float32Array): void;
  /** The answer is left in SumSlot.sum. */
  sumSquares(x: Float32Array): void;
  probeRead(buffer: Uint8Array): void;
  probeFma(iterations: number): number;
  /** kind as DotKind in ops.h. */
  probeDot(kind: number, iterations: number): number;
  probeTiles(iterations: number): number;
  /** -1 where no thread came. */
  probeWake(): number;
}
