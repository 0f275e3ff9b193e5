/** The two commits that are compared. */
export const BASE = 'base';
export const HEAD = 'head';

/** Folders of the built packages. */
export interface Builds {
  base: string;
  head: string;
}

export interface GateOptions {
  /** How much slower, as a share of the time, fails. */
  threshold: number;
  /** Runs of each side, in turn. */
  rounds: number;
  /** Of timing for each side of a case of attention, all rounds together. */
  seconds: number;
}
