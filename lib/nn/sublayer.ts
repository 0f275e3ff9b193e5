/** What blocks are made of. */
import { getBackend } from '../backend';
import type { AttentionStats } from '../core/attention-stats';
import type { KvStep } from '../kv-cache/kv-cache';
import type { FusedLinear, Norm } from './fused-linear';
import type { Scratch } from './scratch';

/** Tokens on their way through the layers of a model. */
export interface Tokens {
  /** Their number: those of all sequences of the step. */
  readonly rows: number;
  /** Where their keys and values go, and their queries look. */
  readonly step: KvStep;
  readonly scratch: Scratch;
}

/** Attention or an MLP with its norms: adds what it makes of x to out, both [rows, hiddenSize]. */
export interface Sublayer {
  /** Bytes of weights held. */
  readonly bytes: number;
  /**
   * `out` may be x. `layer` is the cache's.
   * @param stats takes the statistics of attention, [1, rows, heads]
   */
  addTo(
    out: Float32Array,
    x: Float32Array,
    tokens: Tokens,
    layer: number,
    stats?: AttentionStats,
  ): void;
  dispose(): void;
}

/** out += norm(projection(input)), or without the norm where there is none. */
export function addProjection(
  projection: FusedLinear,
  outputNorm: Norm | null,
  input: Float32Array,
  out: Float32Array,
  { rows, scratch }: Tokens,
): void {
  if (outputNorm === null) {
    projection.run(input, rows, [out], scratch);
    return;
  }
  const branch = scratch.rows('branch', outputNorm.dim);
  projection.run(input, rows, [branch], scratch);
  outputNorm.apply(branch, branch, rows);
  getBackend().add(out, branch, rows * outputNorm.dim);
}
