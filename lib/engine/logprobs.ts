/** Log probabilities of the model itself: before bias, penalties and everything else that sampling does to logits. */
import { logSumExp } from '../model/log-sum-exp';

export interface TokenLogprobs {
  /** Of the chosen token. */
  chosen: number;
  /** The most likely, most likely first; of equals the lower id. */
  ids: number[];
  logprobs: number[];
}

/** @param logits f32 [vocab]; sums are float64 */
export function tokenLogprobs(logits: Float32Array, token: number, count: number): TokenLogprobs {
  const total = logSumExp(logits);
  const ids = mostLikely(logits, count);
  return {
    chosen: logits[token] - total,
    ids,
    logprobs: ids.map((id) => logits[id] - total),
  };
}

function mostLikely(logits: Float32Array, count: number): number[] {
  const ids: number[] = [];
  if (count === 0) return ids;
  for (let id = 0; id < logits.length; id++) {
    const logit = logits[id];
    if (ids.length === count && !(logit > logits[ids[count - 1]])) continue;
    if (Number.isNaN(logit)) continue;
    let at = ids.length;
    while (at > 0 && logit > logits[ids[at - 1]]) at--;
    ids.splice(at, 0, id);
    if (ids.length > count) ids.pop();
  }
  return ids;
}
