/** Which layers are cheap to group, from what was measured; and what a popular rule says, beside it. */

/**
 * Relative errors of a layer's attention output, in a model whose other layers are as they were. A quarter of the output's
 * magnitude is what a share of 1/16 of its energy is; half of it is a quarter of the energy.
 */
export const CHEAP_ERROR = 0.25;
export const COSTLY_ERROR = 0.5;

/** 'single': one KV head cannot be grouped further. */
export type Verdict = 'cheap' | 'fair' | 'costly' | 'single';

export function verdictOf(outputError: number | null): Verdict {
  if (outputError === null) return 'single';
  if (outputError < CHEAP_ERROR) return 'cheap';
  return outputError < COSTLY_ERROR ? 'fair' : 'costly';
}

/** The bound of write-ups, "entropy below 3.5 means safe to group"; they give no unit, nats are assumed. */
export const ENTROPY_RULE = 3.5;

export interface RuleCheck {
  /** Layers that the rule calls safe, of those that can be grouped. */
  safe: number;
  layers: number;
  /** Of those, how many the measured error calls costly; and how many it calls cheap that the rule does not call safe. */
  safeButCostly: number;
  cheapButUnsafe: number;
  /** Spearman's rank correlation with the measured error over layers; null for fewer than three layers. */
  entropyCorrelation: number | null;
  /** The same of aligned similarity: below 0 where alike heads cost less. */
  similarityCorrelation: number | null;
}

export interface RuleRow {
  entropyNats: number;
  similarity: number;
  outputError: number;
}

export function checkRule(rows: readonly RuleRow[]): RuleCheck {
  const isSafe = ({ entropyNats }: RuleRow): boolean => entropyNats < ENTROPY_RULE;
  const count = (test: (row: RuleRow) => boolean): number => rows.filter(test).length;
  const errors = rows.map(({ outputError }) => outputError);
  const correlation = (values: number[]): number | null =>
    rows.length < 3 ? null : rankCorrelation(values, errors);
  return {
    safe: count(isSafe),
    layers: rows.length,
    safeButCostly: count((row) => isSafe(row) && verdictOf(row.outputError) === 'costly'),
    cheapButUnsafe: count((row) => !isSafe(row) && verdictOf(row.outputError) === 'cheap'),
    entropyCorrelation: correlation(rows.map(({ entropyNats }) => entropyNats)),
    similarityCorrelation: correlation(rows.map(({ similarity }) => similarity)),
  };
}

/** Pearson's correlation of ranks; equal values share their mean rank. */
export function rankCorrelation(a: readonly number[], b: readonly number[]): number {
  const [x, y] = [ranks(a), ranks(b)];
  const mean = (a.length - 1) / 2;
  let [xy, xx, yy] = [0, 0, 0];
  x.forEach((rank, i) => {
    xy += (rank - mean) * (y[i] - mean);
    xx += (rank - mean) ** 2;
    yy += (y[i] - mean) ** 2;
  });
  return xx > 0 && yy > 0 ? xy / Math.sqrt(xx * yy) : 0;
}

function ranks(values: readonly number[]): number[] {
  return values.map((value) => {
    const below = values.filter((other) => other < value).length;
    const equal = values.filter((other) => other === value).length;
    return below + (equal - 1) / 2;
  });
}
