/**
 * Slopes of ALiBi, f32 [heads]: 2^(-8 i / n), i = 1 .. n, of the largest power of two n <= heads; then, of 2n, those with odd
 * i as far as heads go (Press et al., 2022).
 */
export function alibiSlopes(heads: number): Float32Array {
  const n = 2 ** Math.floor(Math.log2(heads));
  return Float32Array.from({ length: heads }, (_, head) =>
    head < n ? 2 ** ((-8 * (head + 1)) / n) : 2 ** ((-8 * (2 * (head - n) + 1)) / (2 * n)),
  );
}
