/** Seeded random numbers for tests: the same on every machine and backend. */
// Globals are slow to reach from within jest: taken once.
const { cos, floor, imul, log, PI, sqrt } = Math;

export class Random {
  constructor(private state: number) {}

  /** Uniform in [0, 1): mulberry32. */
  uniform(): number {
    this.state = (this.state + 0x6d2b79f5) | 0;
    let t = imul(this.state ^ (this.state >>> 15), 1 | this.state);
    t = (t + imul(t ^ (t >>> 7), 61 | t)) ^ t;
    return ((t ^ (t >>> 14)) >>> 0) / 2 ** 32;
  }

  /** Whole number in [low, high]. */
  int(low: number, high: number): number {
    return low + floor(this.uniform() * (high - low + 1));
  }

  normal(): number {
    return sqrt(-2 * log(1 - this.uniform())) * cos(2 * PI * this.uniform());
  }

  normals(count: number, scale = 1): number[] {
    return Array.from({ length: count }, () => scale * this.normal());
  }

  pick<T>(from: readonly T[]): T {
    return from[this.int(0, from.length - 1)];
  }

  chance(probability: number): boolean {
    return this.uniform() < probability;
  }

  shuffle<T>(from: readonly T[]): T[] {
    const a = [...from];
    for (let i = a.length - 1; i > 0; i--) {
      const j = this.int(0, i);
      [a[i], a[j]] = [a[j], a[i]];
    }
    return a;
  }
}
