/** How many tokens to draft for each sequence of a step: those that make its tokens per second the most. */
import type { DraftRoom } from './speculation';

export interface Candidate {
  /** Tokens that can be drafted. */
  most: number;
  /** How likely the first is right, and each where those before it were. */
  acceptance: number;
  /** Milliseconds to draft a token. */
  cost: number;
}

/** Less than this much faster is not worth it: costs are estimates. */
const LEAST_GAIN = 1.02;

/**
 * Rows are added in the order of how likely they are to be right. Steps do not cost more with every single row (kernels
 * take several at once), so that all are tried and the best number of them is kept.
 *
 * @param tokens that the step gives without drafts
 * @returns drafts for each candidate
 */
export function draftLengths(
  candidates: readonly Candidate[],
  tokens: number,
  { rows, most, cost }: DraftRoom,
): number[] {
  const lengths = candidates.map(() => 0);
  const chances = candidates.map(({ acceptance }) => acceptance);
  let best = lengths.slice();
  let expected = tokens;
  let drafting = 0;
  let bestRate = (LEAST_GAIN * tokens) / cost.of(rows);
  for (let added = 1; added <= most; added++) {
    const next = likeliest(candidates, lengths, chances);
    if (next < 0) break;
    lengths[next]++;
    expected += chances[next];
    drafting += candidates[next].cost;
    chances[next] *= candidates[next].acceptance;
    const rate = expected / (cost.of(rows + added) + drafting);
    if (rate <= bestRate) continue;
    bestRate = rate;
    best = lengths.slice();
  }
  return best;
}

function likeliest(
  candidates: readonly Candidate[],
  lengths: readonly number[],
  chances: readonly number[],
): number {
  let next = -1;
  for (let i = 0; i < candidates.length; i++) {
    if (lengths[i] === candidates[i].most) continue;
    if (next < 0 || chances[i] > chances[next]) next = i;
  }
  return next;
}
