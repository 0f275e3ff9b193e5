/** A step of training: the schedule of the rate, clipping by the norm of all gradients, AdamW. */
import type { TrainingBackend } from '../../backend/contract-training';
import type { Parameter, Training } from './parameters';

/** Those of the Llama reports (arXiv:2302.13971, 2307.09288). */
const BETA1 = 0.9;
const BETA2 = 0.95;
const EPS = 1e-8;
const MAX_NORM = 1;

export interface Schedule {
  /** Its highest. */
  rate: number;
  steps: number;
  /** Steps in which the rate rises to its highest, of all. */
  warmup: number;
  /** What the rate falls to, as a share of its highest. */
  floor: number;
}

/** Rises in a line through the warm-up, then falls to the floor along half a cosine; `step` counts from 0. */
export function rateAt({ rate, steps, warmup, floor }: Schedule, step: number): number {
  if (step < warmup) return (rate * (step + 1)) / warmup;
  const passed = (step - warmup) / Math.max(1, steps - warmup);
  return rate * (floor + ((1 - floor) * (1 + Math.cos(Math.PI * passed))) / 2);
}

type Trained = Parameter & { training: Training };

/** The norm of all gradients together. */
export function gradientNorm(backend: TrainingBackend, trained: readonly Trained[]): number {
  const squares = trained.map(({ training: { gradient } }) =>
    backend.sumSquares(gradient, gradient.length),
  );
  return Math.sqrt(squares.reduce((sum, x) => sum + x, 0));
}

/** @param step counted from 0 */
export function updateWeights(
  backend: TrainingBackend,
  trained: readonly Trained[],
  step: number,
  settings: { rate: number; decay: number; norm: number },
): void {
  const { rate, decay, norm } = settings;
  for (const { weight, training, decays } of trained) {
    backend.adamW({
      weight,
      ...training,
      count: weight.length,
      gradientScale: norm > MAX_NORM ? MAX_NORM / norm : 1,
      rate,
      beta1: BETA1,
      beta2: BETA2,
      eps: EPS,
      decay: decays ? decay : 0,
      correction1: 1 - BETA1 ** (step + 1),
      correction2: 1 - BETA2 ** (step + 1),
    });
  }
}
