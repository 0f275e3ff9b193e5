/** Drafts by looking back: what followed the same tokens where they stood before, in prompt or answer. */

/** Shorter runs than this say nothing about what comes next; where `ngram` is less, that is enough. */
const LEAST_MATCH = 2;

/**
 * The tokens after the longest earlier run, of `ngram` tokens at most, that ends as the text does; of runs of equal
 * length after the latest.
 *
 * @returns `draft` tokens at most; none where no run of two tokens (or ngram, if less) stood there before
 */
export function lookUp(tokens: readonly number[], ngram: number, draft: number): number[] {
  const end = tokens.length - 1;
  const last = tokens[end];
  let longest = Math.min(LEAST_MATCH, ngram) - 1;
  let found = -1;
  for (let at = end - 1; at >= longest && longest < ngram; at--) {
    if (tokens[at] !== last) continue;
    let length = 1;
    while (length < ngram && at >= length && tokens[at - length] === tokens[end - length]) length++;
    if (length <= longest) continue;
    longest = length;
    found = at;
  }
  return found < 0 ? [] : tokens.slice(found + 1, found + 1 + draft);
}
