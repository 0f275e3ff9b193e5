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
