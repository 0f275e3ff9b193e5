/** What our time is to be against the peers', per operation and dtype, on machines with and without AMX. */
import { readFileSync } from 'node:fs';
import { isQuantised } from '../../lib/cli/bench/roofline';
import type { PeerCase } from './attention-run';
import type { Measure } from './model-run';

export interface Bar {
  /** The peer that counts; null for the best of all. */
  against: string | null;
  /** Its time over ours must be at least this. */
  ratio: number;
}

export function hasAmx(): boolean {
  try {
    return /\bamx_tile\b/.test(readFileSync('/proc/cpuinfo', 'utf8'));
  } catch {
    // Not Linux: no machine with AMX runs anything else here.
    return false;
  }
}

/** Null where nothing was promised. */
export function barOf({ op, dtype }: Pick<PeerCase, 'op' | 'dtype'>, amx: boolean): Bar | null {
  if (op === 'prefill') {
    return dtype === 'bf16' ? { against: 'pytorch', ratio: amx ? 3 : 1.7 } : null;
  }
  if (isQuantised(dtype)) return { against: null, ratio: 6 };
  if (dtype === 'f32') return { against: null, ratio: amx ? 1.7 : 2.5 };
  return { against: null, ratio: 2.5 };
}

/** node-llama-cpp's time over ours in precision fast, end to end; it repacks Q4_0 and Q8_0 files, not Q4_1. */
export function modelBar(file: string, measure: Measure): number {
  const bars: Record<Measure, number> = {
    prompt: /Q4_1/i.test(file) ? 2 : 1.3,
    generation: 1.8,
    longGeneration: 3,
    firstToken: 1 / 0.55,
  };
  return bars[measure];
}
