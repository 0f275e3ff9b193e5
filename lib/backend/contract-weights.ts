/** Packed weights in files, which processes share by mapping them. */
import type { WeightDType } from '../core/dtype';
import type { PackedWeights } from './contract';

/**
 * What packed bytes mean. Raise it when the order of packed weights changes (native/kernels/pack.h, native/layout.h), or
 * what a tensor of a checkpoint becomes before it is packed (lib/model): files of other numbers are packed anew.
 */
export const WEIGHT_LAYOUT = 1;

/** Where packed weights lie in a file; sizes as in PackArgs. */
export interface PackedPlace {
  /** A multiple of 64. */
  offset: number;
  dtype: WeightDType;
  rows: number;
  columns: number;
}

/** A file in memory, the pages of its own where the system maps it. */
export interface PackedFile {
  readonly bytes: number;
  /** Whether the memory is that of all processes which map the file; else this process's own copy. */
  readonly shared: boolean;
  /**
   * Weights that lie in the file, without a copy. They keep its memory until they are disposed of, whether or not the file
   * is.
   * @throws GqaError INVALID_FILE where the file does not hold them
   */
  weights(place: PackedPlace): PackedWeights;
  dispose(): void;
}

export interface PackedFiles {
  /** Nobody may write to the file from now on; it may be renamed and removed. @throws GqaError INVALID_FILE */
  open(path: string): PackedFile;
  /** Copies bytes [from, from + to.length) of packed weights as they lie in memory. */
  read(weights: PackedWeights, to: Uint8Array, from: number): void;
  /** Of all bytes of packed weights: XXH64 of each MiB, and of those. It finds damage, not malice. */
  checksum(weights: PackedWeights): bigint;
}
