/** Draft tokens as a tree: which of them each sees, and how deep it lies. */
import { expectedError } from '../core/errors';
import { describe } from '../core/validate';

/** Tokens of a tree at most: they lie in two blocks. */
export const MAX_TREE_TOKENS = 64;

export class TokenTree {
  /** Distance from the sequence's last token, less one: a root's is 0. */
  readonly depths: Int32Array;

  /** @param parents row of each token's parent, -1 for a root; parents come before their children */
  private constructor(readonly parents: Int32Array) {
    this.depths = new Int32Array(parents.length);
    for (let i = 0; i < parents.length; i++) {
      this.depths[i] = parents[i] < 0 ? 0 : this.depths[parents[i]] + 1;
    }
  }

  /** @throws GqaError INVALID_ARGUMENT, OUT_OF_RANGE */
  static read(parents: ArrayLike<number>, tokens: number, argument: string): TokenTree {
    const length = (parents as ArrayLike<number> | null)?.length;
    if (typeof parents !== 'object' || length !== tokens) {
      const expected = `the parents of ${tokens} tokens`;
      throw expectedError('INVALID_ARGUMENT', argument, expected, describe(parents));
    }
    if (tokens > MAX_TREE_TOKENS) {
      const expected = `at most ${MAX_TREE_TOKENS} tokens`;
      throw expectedError('OUT_OF_RANGE', argument, expected, String(tokens));
    }
    for (let i = 0; i < tokens; i++) {
      if (Number.isInteger(parents[i]) && parents[i] >= -1 && parents[i] < i) continue;
      const expected = `-1 or an earlier row as the parent of row ${i}`;
      throw expectedError('INVALID_ARGUMENT', argument, expected, describe(parents[i]));
    }
    return new TokenTree(Int32Array.from(parents));
  }

  get tokens(): number {
    return this.parents.length;
  }

  /**
   * Writes depths [tokens], then [tokens][tokens]: 1 where the row sees the token, by descent, and by the window unless
   * its depth is below `sinkDepth`, which makes it a sink.
   */
  write(into: Int32Array, at: number, window: number, sinkDepth: number): void {
    const { tokens, parents, depths } = this;
    into.set(depths, at);
    const matrix = at + tokens;
    into.fill(0, matrix, matrix + tokens * tokens);
    for (let row = 0; row < tokens; row++) {
      for (let seen = row; seen >= 0; seen = parents[seen]) {
        const near = depths[row] - depths[seen] < window;
        if (near || depths[seen] < sinkDepth) into[matrix + row * tokens + seen] = 1;
      }
    }
  }

  /** Whether these rows lead from a root down, each the parent of the next. */
  isPath(rows: ArrayLike<number>): boolean {
    for (let i = 0; i < rows.length; i++) {
      const row = rows[i];
      if (!Number.isInteger(row) || row < 0 || row >= this.tokens) return false;
      if (this.parents[row] !== (i === 0 ? -1 : rows[i - 1])) return false;
    }
    return true;
  }
}
