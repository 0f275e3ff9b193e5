/** How long steps of so many rows take, learnt from those that ran. */

/** Share of what is known that a new measurement replaces. */
const LEARNING_RATE = 0.1;
/** Cost of a further row where nothing is known, in parts of the smallest step measured. */
const UNKNOWN_ROW = 0.1;
/** Rows up to here are told apart; beyond, by sixteens. */
const FINE_ROWS = 32;
const COARSE = 16;

export class StepCost {
  /** Milliseconds by bucket of rows, in ascending order of rows. */
  private readonly measured: { rows: number; ms: number }[] = [];

  record(rows: number, ms: number): void {
    const bucket = rows <= FINE_ROWS ? rows : Math.round(rows / COARSE) * COARSE;
    const at = this.measured.findIndex((known) => known.rows >= bucket);
    if (at >= 0 && this.measured[at].rows === bucket) {
      this.measured[at].ms += LEARNING_RATE * (ms - this.measured[at].ms);
    } else {
      this.measured.splice(at < 0 ? this.measured.length : at, 0, { rows: bucket, ms });
    }
  }

  /** Milliseconds that a step of so many rows should take; 0 where nothing is known at all. */
  of(rows: number): number {
    const { measured } = this;
    if (measured.length === 0) return 0;
    const above = measured.findIndex((known) => known.rows >= rows);
    const perRow = UNKNOWN_ROW * measured[0].ms;
    if (above < 0) {
      const last = measured[measured.length - 1];
      return last.ms + perRow * (rows - last.rows);
    }
    if (above === 0) return measured[0].ms;
    const [low, high] = [measured[above - 1], measured[above]];
    return low.ms + ((high.ms - low.ms) * (rows - low.rows)) / (high.rows - low.rows);
  }

  /** The most rows beside `rows` others, up to `most`, that make a step last no longer than `ms`. */
  within(ms: number, rows: number, most: number): number {
    if (this.measured.length === 0) return most;
    let more = most;
    while (more > 1 && this.of(rows + more) > ms) more = Math.floor(more * 0.8);
    return more;
  }
}
