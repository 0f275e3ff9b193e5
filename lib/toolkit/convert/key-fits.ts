/**
 * One key for several heads. A RoPE pair r of a head's key, (k_r, k_{r + D/2}), is a complex number z_r = c_r x, and RoPE
 * multiplies it by e^(i p f_r). A factor a_r of a head commutes with that, and a score
 *   Re(conj(q_r) a_r z_r e^(i (j - p) f_r))
 * has it as well when the query has it instead: q_r becomes conj(a_r) q_r. So each head i of a group may read a_i z for the
 * group's z = sum_j b_j z_j, for any complex a and b of each pair, at no cost.
 */
import { EigenvalueDecomposition, Matrix } from 'ml-matrix';
import type { Complex } from './complex';
import { argument, conjugate, multiply, polar, scaled } from './complex';

/** z = sum_j combine[j] z_j; z_i is about factors[i] z. */
export interface KeyFit {
  combine: Complex[];
  factors: Complex[];
}

/** <z_i, z_j> = conj(z_i) z_j of the heads of a group in one pair. */
export type PairGram = (i: number, j: number) => Complex;

/** Rounds of alignment; a group is near its fixed point after a few. */
const ROUNDS = 30;
/** A head that no query asks for still has this share of the largest weight, so that nothing is divided by zero. */
const LEAST_WEIGHT = 1e-6;

/** From the gram of the rows of `heads` heads of headDim, half-split. */
export function pairGram(gram: Matrix, headDim: number, pair: number): PairGram {
  const half = headDim / 2;
  return (i, j) => {
    const [a, b] = [i * headDim + pair, j * headDim + pair];
    return [
      gram.get(a, b) + gram.get(a + half, b + half),
      gram.get(a, b + half) - gram.get(a + half, b),
    ];
  };
}

/**
 * Generalised Procrustes: each head is turned to the mean of the turned heads, a_i = e^(i phi_i), in rounds. Then norms are
 * restored: |z| becomes the heads' (root mean square) norm, and |a_i| the head's share of it.
 */
export function alignedFit(heads: number, gram: PairGram): KeyFit {
  let phases = principalVector(heads, gram).map(argument);
  for (let round = 0; round < ROUNDS; round++) {
    phases = phases.map((_, i) => argument(overlap(phases, i, gram)));
  }
  const turned = phases.map((phase) => polar(1 / heads, -phase));
  const norms = Array.from({ length: heads }, (_, i) => Math.sqrt(Math.max(0, gram(i, i)[0])));
  const wanted = Math.sqrt(norms.reduce((sum, norm) => sum + norm * norm, 0) / heads);
  const restore = ratio(wanted, Math.sqrt(energyOf(turned, gram)));
  return {
    combine: turned.map((factor) => scaled(factor, restore)),
    factors: phases.map((phase, i) => polar(ratio(norms[i], wanted), phase)),
  };
}

/**
 * The best there is in the sense of least squares: min sum_i w_i E|z_i - a_i z|^2 is the principal component of the
 * sqrt(w_i) z_i. w_i: the energy of the queries that read head i in this pair.
 */
export function fittedFit(heads: number, gram: PairGram, weights: readonly number[]): KeyFit {
  const least = Math.max(LEAST_WEIGHT * Math.max(...weights), Number.MIN_VALUE);
  const roots = weights.map((weight) => Math.sqrt(Math.max(weight, least)));
  const weighted: PairGram = (i, j) => scaled(gram(i, j), roots[i] * roots[j]);
  const u = principalVector(heads, weighted);
  const combine = u.map((entry, j) => scaled(conjugate(entry), roots[j]));
  // Any factor may move from a to b: z gets the norm that the heads have on average.
  let energy = 0;
  for (let i = 0; i < heads; i++) energy += gram(i, i)[0] / heads;
  const size = ratio(Math.sqrt(energy), Math.sqrt(energyOf(combine, gram)));
  return {
    combine: combine.map((entry) => scaled(entry, size)),
    factors: u.map((entry, i) => scaled(entry, ratio(1 / roots[i], size))),
  };
}

/** Eigenvector of the largest eigenvalue of H_ij = z_i conj(z_j), from that of [[Re, -Im], [Im, Re]]. */
function principalVector(heads: number, gram: PairGram): Complex[] {
  const real = Matrix.zeros(2 * heads, 2 * heads);
  for (let i = 0; i < heads; i++) {
    for (let j = 0; j < heads; j++) {
      const [re, im] = conjugate(gram(i, j));
      real.set(i, j, re);
      real.set(i + heads, j + heads, re);
      real.set(i, j + heads, -im);
      real.set(i + heads, j, im);
    }
  }
  const { eigenvectorMatrix } = new EigenvalueDecomposition(real, { assumeSymmetric: true });
  const last = eigenvectorMatrix.getColumn(2 * heads - 1);
  const vector = Array.from({ length: heads }, (_, i): Complex => [last[i], last[i + heads]]);
  const norm = Math.hypot(...last);
  return vector.map((entry) => scaled(entry, ratio(1, norm)));
}

/** <sum_j e^(-i phi_j) z_j, z_i>: its argument is how far head i is turned from the mean. */
function overlap(phases: readonly number[], i: number, gram: PairGram): Complex {
  let [re, im] = [0, 0];
  phases.forEach((phase, j) => {
    const term = multiply(polar(1, phase), gram(j, i));
    re += term[0];
    im += term[1];
  });
  return [re, im];
}

/** |sum_j b_j z_j|^2 */
function energyOf(combine: readonly Complex[], gram: PairGram): number {
  let sum = 0;
  combine.forEach((a, i) => {
    combine.forEach((b, j) => {
      sum += multiply(multiply(conjugate(a), b), gram(i, j))[0];
    });
  });
  return Math.max(0, sum);
}

/** a / b, and 1 where both are nothing: a pair of zeros stays one. */
function ratio(a: number, b: number): number {
  return b > 0 ? a / b : 1;
}
