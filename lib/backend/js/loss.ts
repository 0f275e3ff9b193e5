/** Cross-entropy and distillation: losses of rows of logits, and their gradient in the logits' place; sums in f64. */
import type { CrossEntropyArgs } from '../contract-training';

// Names of the module's own: in a vm context (jest) finding a global costs more than the exponential.
const { exp, log } = Math;

export function crossEntropy(args: CrossEntropyArgs): void {
  const { logits, teacher, targets, nll, kl, rows, vocab, weight } = args;
  for (let i = 0; i < rows; i++) {
    const first = i * vocab;
    const target = targets[i];
    if (target < 0) {
      nll[i] = 0;
      if (kl !== null) kl[i] = 0;
      logits.fill(0, first, first + vocab);
      continue;
    }
    const lse = logSumExp(logits, first, vocab);
    nll[i] = lse - logits[first + target];
    if (teacher === null) {
      for (let c = first; c < first + vocab; c++) logits[c] = weight * exp(logits[c] - lse);
      logits[first + target] -= weight;
    } else {
      const divergence = distil(args, teacher, first, target, lse);
      if (kl !== null) kl[i] = divergence;
    }
  }
}

/** The row's gradient p - (1 - share) onehot - share t, times weight; returns KL(t || p). */
function distil(
  { logits, vocab, teacherShare, weight }: CrossEntropyArgs,
  teacher: Float32Array,
  first: number,
  target: number,
  lse: number,
): number {
  const teacherLse = logSumExp(teacher, first, vocab);
  let divergence = 0;
  for (let c = 0; c < vocab; c++) {
    const logP = logits[first + c] - lse;
    const logT = teacher[first + c] - teacherLse;
    const t = exp(logT);
    // A weight of nothing has no part, whatever the student makes of it.
    if (t > 0) divergence += t * (logT - logP);
    const wanted = teacherShare * t + (c === target ? 1 - teacherShare : 0);
    logits[first + c] = weight * (exp(logP) - wanted);
  }
  return divergence;
}

function logSumExp(x: Float32Array, first: number, count: number): number {
  let max = -Infinity;
  for (let c = first; c < first + count; c++) if (x[c] > max) max = x[c];
  let sum = 0;
  for (let c = first; c < first + count; c++) sum += exp(x[c] - max);
  return max + log(sum);
}
