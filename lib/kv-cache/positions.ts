/**
 * Queries of a cache that counts positions within what a query sees (StreamingLLM): the sinks at 0 .. s - 1, the window
 * after them, the query itself last. RoPE makes scores depend on distances alone, and within the window those are the
 * absolute ones. So keys stay turned to their absolute positions p; a query meets the window's keys turned to p, and the
 * sinks' turned to its slot min(p, s + window - 1).
 */
import type { KeyRotation } from './options';

/** Rows q [tokens, heads, headDim] f32 that see a window and sinks. */
export interface UnturnedQueries {
  rope: KeyRotation;
  q: Float32Array;
  tokens: number;
  heads: number;
  window: number;
  sinkTokens: number;
  /** Absolute position of a row. */
  readonly positionOf: (row: number) => number;
}

/**
 * Turns q in place to absolute positions.
 *
 * @param spare where the copy goes, if it is large enough
 * @returns a copy of q turned to slots; null where those are the same, or nothing is kept beside the window
 */
export function turnQueries(queries: UnturnedQueries, spare: Float32Array): Float32Array | null {
  const { rope, q, tokens, heads, window, sinkTokens, positionOf } = queries;
  const lastSlot = sinkTokens + window - 1;
  const width = heads * rope.headDim;
  const moved = sinkTokens > 0 && anyAbove(tokens, positionOf, lastSlot);
  let sinkQ: Float32Array | null = null;
  if (moved) {
    sinkQ = spare.length < tokens * width ? new Float32Array(tokens * width) : spare;
    sinkQ.set(q.subarray(0, tokens * width));
  }
  for (let row = 0; row < tokens; row++) {
    const position = positionOf(row);
    rope.apply(q.subarray(row * width), 1, heads, position);
    if (sinkQ === null) continue;
    rope.apply(sinkQ.subarray(row * width), 1, heads, Math.min(position, lastSlot));
  }
  return sinkQ;
}

function anyAbove(tokens: number, positionOf: (row: number) => number, limit: number): boolean {
  for (let row = 0; row < tokens; row++) if (positionOf(row) > limit) return true;
  return false;
}
