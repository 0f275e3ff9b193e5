/** Which windows a step is made of: those of an epoch in an order drawn from the seed, epoch after epoch. */
import { SeededRandom } from '../../core/random';

export class Batches {
  private epoch = -1;
  private order: Int32Array = new Int32Array(0);

  /** @param count windows of the text */
  constructor(
    private readonly count: number,
    private readonly batch: number,
    private readonly seed: number,
  ) {}

  /** Indexes of the windows of a step, counted from 0. Depends on nothing that came before. */
  of(step: number): number[] {
    return Array.from({ length: this.batch }, (_, i) => this.at(step * this.batch + i));
  }

  private at(drawn: number): number {
    const epoch = Math.floor(drawn / this.count);
    if (epoch !== this.epoch) {
      this.order = shuffled(this.count, this.seed + epoch);
      this.epoch = epoch;
    }
    return this.order[drawn % this.count];
  }
}

/** Fisher and Yates. */
function shuffled(count: number, seed: number): Int32Array {
  const random = new SeededRandom(seed);
  const order = Int32Array.from({ length: count }, (_, i) => i);
  for (let i = count - 1; i > 0; i--) {
    const j = Math.floor(random.uniform() * (i + 1));
    [order[i], order[j]] = [order[j], order[i]];
  }
  return order;
}
