/**
 * Statistics of one layer's attention summed up over many rows: count, and mean, least and most of each statistic for
 * every query head, in fixed arrays, so that adding a step allocates nothing.
 *
 * A row that sees fewer than two keys has nothing to choose from: it counts for the maximum logit alone.
 */
import { effectiveContext, type AttentionStats } from '../../core/attention-stats';

/** What is averaged, by the names that AttentionStats has for it. */
export const AVERAGED = ['entropy', 'sinkMass', 'recentMass', 'effectiveContext'] as const;
export type Averaged = (typeof AVERAGED)[number];

export interface Summary {
  mean: number;
  min: number;
  max: number;
}

/** Of one statistic, by query head. */
class Accumulator {
  readonly sum: Float64Array;
  readonly min: Float64Array;
  readonly max: Float64Array;

  constructor(heads: number) {
    this.sum = new Float64Array(heads);
    this.min = new Float64Array(heads);
    this.max = new Float64Array(heads);
    this.reset();
  }

  reset(): void {
    this.sum.fill(0);
    this.min.fill(Infinity);
    this.max.fill(-Infinity);
  }

  add(head: number, value: number): void {
    this.sum[head] += value;
    if (value < this.min[head]) this.min[head] = value;
    if (value > this.max[head]) this.max[head] = value;
  }
}

export class LayerAggregate {
  /** Rows of each head that count. */
  readonly rows: Float64Array;
  /** [heads], -Infinity before the first row. */
  readonly maxLogit: Float64Array;
  private readonly of: Readonly<Record<Averaged, Accumulator>>;

  constructor(
    readonly heads: number,
    readonly kvHeads: number,
  ) {
    this.rows = new Float64Array(heads);
    this.maxLogit = new Float64Array(heads).fill(-Infinity);
    this.of = {
      entropy: new Accumulator(heads),
      sinkMass: new Accumulator(heads),
      recentMass: new Accumulator(heads),
      effectiveContext: new Accumulator(heads),
    };
  }

  /** Adds all rows of the latest call. */
  add(stats: AttentionStats): void {
    const { entropy, sinkMass, recentMass, maxLogit, visible } = stats;
    const { of, heads, rows } = this;
    for (let i = 0; i < visible.length; i++) {
      const head = i % heads;
      if (maxLogit[i] > this.maxLogit[head]) this.maxLogit[head] = maxLogit[i];
      if (visible[i] < 2) continue;
      rows[head]++;
      of.entropy.add(head, entropy[i]);
      of.sinkMass.add(head, sinkMass[i]);
      of.recentMass.add(head, recentMass[i]);
      of.effectiveContext.add(head, effectiveContext(entropy[i], visible[i]));
    }
  }

  /** Of one head; NaN before the first row. */
  summary(statistic: Averaged, head: number): Summary {
    const { sum, min, max } = this.of[statistic];
    const count = this.rows[head];
    if (count === 0) return { mean: NaN, min: NaN, max: NaN };
    return { mean: sum[head] / count, min: min[head], max: max[head] };
  }

  mean(statistic: Averaged, head: number): number {
    return this.of[statistic].sum[head] / this.rows[head];
  }

  /** Largest less smallest mean normalised entropy among the query heads of a group; NaN before the first row. */
  spread(group: number): number {
    const size = this.heads / this.kvHeads;
    let least = Infinity;
    let most = -Infinity;
    for (let head = group * size; head < (group + 1) * size; head++) {
      const mean = this.mean('entropy', head);
      least = Math.min(least, mean);
      most = Math.max(most, mean);
    }
    return most - least;
  }

  reset(): void {
    this.rows.fill(0);
    this.maxLogit.fill(-Infinity);
    for (const accumulator of Object.values(this.of)) accumulator.reset();
  }
}
