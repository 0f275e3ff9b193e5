/** Which positions of an append are held, and so which blocks it writes. */
import { mainEnd } from './geometry';
import type { BlockRing } from './ring';

/** Positions [from, to). */
export interface Run {
  from: number;
  to: number;
}

/** New sinks, then newest tokens. */
export type HeldRuns = readonly [Run, Run];

/**
 * Positions of `tokens` tokens appended at `position` that will be held, into `runs`: the new sinks, and of the others
 * those that the window has not already passed. Blocks are written from their first slot on, so that none keeps anything
 * of what it held before.
 */
export function heldRuns(
  ring: BlockRing,
  position: number,
  tokens: number,
  runs: HeldRuns,
): HeldRuns {
  const [sinks, newest] = runs;
  const { sinkTokens, blockTokens: step } = ring.geometry;
  const end = position + tokens;
  const start = ring.startAt(end);
  sinks.from = position;
  sinks.to = position;
  newest.from = position;
  newest.to = end;
  const resume = start - (start % step);
  const sinkEnd = Math.min(end, Math.ceil(sinkTokens / step) * step);
  if (resume > Math.max(position, sinkEnd)) {
    sinks.to = Math.max(position, sinkEnd);
    newest.from = resume;
  }
  return runs;
}

/** Calls visit(ordinal) for each block of the main arenas that an append writes, each of another slot. */
export function forEachWritten(
  ring: BlockRing,
  position: number,
  tokens: number,
  visit: (ordinal: number) => void,
): void {
  const { geometry } = ring;
  const runs: HeldRuns = [
    { from: 0, to: 0 },
    { from: 0, to: 0 },
  ];
  for (const { from, to } of heldRuns(ring, position, tokens, runs)) {
    if (to === from) continue;
    const end = mainEnd(geometry, to);
    for (let at = Math.floor(from / geometry.blockTokens); at < end; at++) visit(at);
  }
}
