/** Statistics of attention against the oracle's. */
import type { AttentionStats } from '../../lib';
import type { Precision } from '../../lib/core/precision';
import type { OracleResult, OracleStats } from '../oracle';
import { ATTENTION_SCORE_LIMIT, lseTolerance, STATISTICS } from '../tolerances';
import { expectClose } from './compare';
import type { CacheName } from './quantise';

/** A copy of what a call left: accessors' arrays are written again by the next. */
export function statsOf(stats: AttentionStats): OracleStats {
  return {
    entropy: Array.from(stats.entropy),
    sinkMass: Array.from(stats.sinkMass),
    recentMass: Array.from(stats.recentMass),
    maxLogit: Array.from(stats.maxLogit),
    visible: Array.from(stats.visible),
  };
}

export function compareStats(
  name: string,
  stats: AttentionStats,
  expected: OracleResult,
  dtype: CacheName,
  precision?: Precision,
): void {
  const found = statsOf(stats);
  const wanted = expected.stats!;
  const tolerance = STATISTICS[dtype] * Math.max(1, expected.largestScore / ATTENTION_SCORE_LIMIT);
  expectClose(`entropy of ${name}`, found.entropy, wanted.entropy, tolerance);
  expectClose(`sink mass of ${name}`, found.sinkMass, wanted.sinkMass, tolerance);
  expectClose(`recent mass of ${name}`, found.recentMass, wanted.recentMass, tolerance);
  const logits = lseTolerance(dtype, expected.largestScore, precision);
  expectClose(`maximum logit of ${name}`, found.maxLogit, wanted.maxLogit, logits);
  expectClose(`visible keys of ${name}`, found.visible, wanted.visible, 0);
}
