/** Order statistics of timings, in the unit they come in. */

/** The p-quantile (0..1) of ascending values, linear between neighbours. */
export function quantile(ascending: ArrayLike<number>, p: number): number {
  const at = (ascending.length - 1) * p;
  const low = Math.floor(at);
  const high = Math.ceil(at);
  return ascending[low] + (ascending[high] - ascending[low]) * (at - low);
}

export interface Spread {
  median: number;
  p10: number;
  p90: number;
  samples: number;
}

export function spread(values: ArrayLike<number>): Spread {
  const ascending = Float64Array.from(values).sort();
  return {
    median: quantile(ascending, 0.5),
    p10: quantile(ascending, 0.1),
    p90: quantile(ascending, 0.9),
    samples: ascending.length,
  };
}

/**
 * The values between which the median of what was sampled lies with at least this confidence, whatever its
 * distribution: order statistics k and n + 1 - k, since P(k-th < median) is binomial. All of the range for few samples.
 */
export function medianInterval(values: ArrayLike<number>, confidence = 0.95): [number, number] {
  const ascending = Float64Array.from(values).sort();
  const n = ascending.length;
  /** P(at most i of n samples lie below the median), summed up until a tail would be too likely. */
  let tail = 0;
  let term = 2 ** -n;
  let k = 0;
  for (; k < (n - 1) / 2; k++) {
    tail += term;
    if (2 * tail > 1 - confidence) break;
    term *= (n - k) / (k + 1);
  }
  const low = Math.max(0, k - 1);
  return [ascending[low], ascending[n - 1 - low]];
}
