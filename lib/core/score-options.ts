/** Checks of the options that shape a score: scale, softcap, what is per query head, precision. */
import { expectedError } from './errors';
import { requirePrecision } from './precision';
import type { Precision } from './precision';
import { checkVector, requireFinite, requireTensorOf } from './validate';

/** As a caller gave them; undefined for the default. */
export interface ScoreOptions {
  scale?: unknown;
  softcap?: unknown;
  alibiSlopes?: unknown;
  sinkLogits?: unknown;
  precision?: unknown;
}

/** As a backend takes them; heads and headDim are known. */
export interface ScoreArgs {
  heads: number;
  headDim: number;
  scale: number;
  softcap: number;
  alibiSlopes: Float32Array | null;
  sinkLogits: Float32Array | null;
  precision: Precision;
}

/** @throws GqaError INVALID_ARGUMENT, INVALID_RANK, INVALID_SHAPE, INVALID_DTYPE, NON_FINITE, OUT_OF_RANGE */
export function fillScoreArgs(args: ScoreArgs, options: ScoreOptions): void {
  const { scale, softcap, alibiSlopes, sinkLogits, precision } = options;
  args.scale =
    scale === undefined ? 1 / Math.sqrt(args.headDim) : requireFinite(scale, 'options.scale');
  args.softcap = softcap === undefined ? 0 : requireSoftcap(softcap);
  args.alibiSlopes = perHead(args, alibiSlopes, 'options.alibiSlopes');
  args.sinkLogits = perHead(args, sinkLogits, 'options.sinkLogits');
  args.precision = requirePrecision(precision ?? 'exact');
}

function requireSoftcap(value: unknown): number {
  const softcap = requireFinite(value, 'options.softcap');
  if (softcap < 0) {
    throw expectedError('OUT_OF_RANGE', 'options.softcap', 'at least 0', String(softcap));
  }
  return softcap;
}

function perHead(args: ScoreArgs, value: unknown, argument: string): Float32Array | null {
  if (value === undefined) return null;
  const tensor = requireTensorOf(value, 'f32', argument);
  checkVector(tensor, args.heads, argument, '[heads]');
  return tensor.storage.data;
}
