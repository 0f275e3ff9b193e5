/**
 * The generator behind sampling, initial weights and dropout: xoshiro128** 1.1 (Blackman and Vigna), its 128 bits of state filled from the seed by
 * splitmix32. The same seed gives the same numbers on every machine and backend.
 */
export class SeededRandom {
  private readonly state: Uint32Array;

  /** @param seed an integer below 2^53 in size; its low and high 32 bits both count */
  constructor(seed: number) {
    const low = splitmix32(seed >>> 0);
    // Set apart from the first, or equal halves (seed 0) would give a state of two equal halves.
    const high = splitmix32((Math.floor(seed / 2 ** 32) ^ 0x6a09e667) >>> 0);
    this.state = Uint32Array.of(low(), low(), high(), high());
  }

  /** Uniform in [0, 1), 53 bits. */
  uniform(): number {
    const high = this.next() >>> 5;
    const low = this.next() >>> 6;
    return (high * 2 ** 26 + low) / 2 ** 53;
  }

  /** 32 bits. */
  next(): number {
    const s = this.state;
    const result = Math.imul(rotateLeft(Math.imul(s[1], 5), 7), 9) >>> 0;
    const t = s[1] << 9;
    s[2] ^= s[0];
    s[3] ^= s[1];
    s[1] ^= s[2];
    s[0] ^= s[3];
    s[2] ^= t;
    s[3] = rotateLeft(s[3], 11);
    return result;
  }
}

function rotateLeft(x: number, bits: number): number {
  return (x << bits) | (x >>> (32 - bits));
}

/** A bijection of the counter: two draws of one stream are never both 0, so the state is never all zeros. */
function splitmix32(seed: number): () => number {
  let state = seed;
  return () => {
    state = (state + 0x9e3779b9) | 0;
    let z = state;
    z = Math.imul(z ^ (z >>> 16), 0x21f0aaad);
    z = Math.imul(z ^ (z >>> 15), 0x735a2d97);
    return (z ^ (z >>> 15)) >>> 0;
  };
}
