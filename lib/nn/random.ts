/** Seeded initial values, the same on every machine. */

/** A stream of uniform numbers in [0, 1), 32 bits of state (mulberry32): good for initial weights, not for secrets. */
export function uniformStream(seed: number): () => number {
  let state = seed >>> 0;
  return () => {
    state = (state + 0x6d2b79f5) >>> 0;
    return mix(state) / 2 ** 32;
  };
}

/** An unsigned 32-bit seed for the n-th draw under `seed`: neighbours share nothing. */
export function derivedSeed(seed: number, n: number): number {
  return mix((mix(seed >>> 0) + Math.imul(n, 0x6d2b79f5)) >>> 0);
}

/** Xavier (Glorot) uniform: values in ±sqrt(6 / (outFeatures + inFeatures)). */
export function fillXavier(
  weight: Float32Array,
  [outFeatures, inFeatures]: readonly [number, number],
  next: () => number,
): void {
  const bound = Math.sqrt(6 / (outFeatures + inFeatures));
  for (let i = 0; i < weight.length; i++) weight[i] = (2 * next() - 1) * bound;
}

/** mulberry32's output function: every bit of x reaches every bit of the result. */
function mix(x: number): number {
  let t = Math.imul(x ^ (x >>> 15), x | 1);
  t ^= t + Math.imul(t ^ (t >>> 7), t | 61);
  return (t ^ (t >>> 14)) >>> 0;
}
