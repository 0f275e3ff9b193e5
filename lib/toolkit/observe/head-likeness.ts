/**
 * How alike the KV heads of a layer are in what they hold for a text: keys and values of the tokens, not their weights.
 *   plain:    cosine of two heads' activations over all tokens and dims, as they stand,
 *   aligned:  the same after turning one head to the other as conversion may (see convert/similarity.ts).
 * RoPE turns both heads alike and so changes neither.
 */
import { Moments } from '../convert/matrices';
import { activationSimilarity, type HeadSimilarity } from '../convert/similarity';
import type { Projected } from '../layer-pass';

/** [kvHeads][kvHeads] each. */
export interface HeadLikeness {
  plain: HeadSimilarity;
  aligned: HeadSimilarity;
}

/** Sums of k k^T and v v^T over the tokens of a text. */
export class LikenessSums {
  private readonly keys: Moments;
  private readonly values: Moments;

  constructor(
    private readonly kvHeads: number,
    private readonly headDim: number,
  ) {
    const columns = kvHeads * headDim;
    this.keys = new Moments(columns, columns);
    this.values = new Moments(columns, columns);
  }

  /** One window's. */
  add([, key, value]: Projected): void {
    const columns = this.kvHeads * this.headDim;
    for (const [sums, { data }] of [
      [this.keys, key],
      [this.values, value],
    ] as const) {
      const rows = { data, rows: data.length / columns, columns };
      sums.add(rows, rows);
    }
  }

  likeness(): HeadLikeness {
    const { kvHeads, headDim } = this;
    const [keys, values] = [this.keys.mean(), this.values.mean()];
    return activationSimilarity(keys, values, kvHeads, headDim);
  }
}
