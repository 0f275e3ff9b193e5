/**
 * One value for several heads. A head's value v_i [D] reaches the output as O_i v_i, so any D x D map of it can be folded
 * into the output projection: with v = sum_j F_j v_j for the group, head i may read A_i v, for any F and A, at no cost.
 *
 * v_i = V_i x, S_ij = V_i E[x x^T] V_j^T (or without E where there is no text): all that is needed of values.
 */
import { EigenvalueDecomposition, Matrix, SingularValueDecomposition } from 'ml-matrix';

/** v = combine [v_1; ..]; v_i is about rows [i D, (i + 1) D) of factors times v. */
export interface ValueFit {
  /** [D, heads * D] */
  combine: Matrix;
  /** [heads * D, D] */
  factors: Matrix;
}

const ROUNDS = 30;
/** Directions of less variance, as a share of the largest, are rounding of f32 products. */
const LEAST_VARIANCE = 1e-8;

/**
 * Generalised Procrustes: each head is turned, v_i = R_i v with R_i orthogonal, to the mean of the turned heads, in rounds.
 * Then norms are restored: v gets the heads' (root mean square) norm, and A_i = R_i times the head's share of it.
 */
export function alignedValues(heads: number, gram: Matrix): ValueFit {
  const dim = gram.rows / heads;
  const rotations = Array.from({ length: heads }, () => Matrix.eye(dim, dim));
  for (let round = 0; round < ROUNDS; round++) {
    for (let i = 0; i < heads; i++) rotations[i] = nearestRotation(overlap(gram, rotations, i));
  }
  const stacked = stack(rotations);
  const turned = stacked.transpose().div(heads);
  const energies = rotations.map((_, i) => block(gram, dim, i, i).trace());
  const wanted = energies.reduce((a, b) => a + b, 0) / heads;
  const energy = turned.mmul(gram).mmul(turned.transpose()).trace();
  rotations.forEach((rotation, i) => rotation.mul(root(energies[i], wanted)));
  return { combine: turned.mul(root(wanted, energy)), factors: stack(rotations) };
}

/**
 * The best there is in the sense of least squares: min sum_i E|O_i (v_i - A_i v)|^2 over all F and A is the principal
 * subspace of the stacked O_i v_i. With S = L L^T and B = diag(O_i^T O_i): E the first D eigenvectors of L^T B L,
 * F = E^T L^+, A = L E. F V is white; a factor between the two gives it the variance that values have.
 * @param outputs O_i^T O_i of each head, summed over the query heads that read it
 */
export function fittedValues(heads: number, gram: Matrix, outputs: readonly Matrix[]): ValueFit {
  const size = gram.rows;
  const dim = size / heads;
  const { values, vectors } = eigen(gram);
  const largest = Math.max(...values, 0);
  const usable = values.map((value) => (value > LEAST_VARIANCE * largest ? value : 0));
  const scale = (by: (value: number) => number): Matrix =>
    vectors.clone().mulRowVector(usable.map(by));
  const left = scale(Math.sqrt);
  const inverse = scale((value) => (value > 0 ? 1 / Math.sqrt(value) : 0)).transpose();
  const weighed = Matrix.zeros(size, size);
  outputs.forEach((output, i) => {
    const rows = left.subMatrix(i * dim, (i + 1) * dim - 1, 0, size - 1);
    weighed.setSubMatrix(output.mmul(rows), i * dim, 0);
  });
  const target = left.transpose().mmul(weighed);
  const principal = eigen(target.add(target.transpose()).mul(0.5)).vectors;
  const first = principal.subMatrix(0, size - 1, size - dim, size - 1);
  const deviation = root(gram.trace(), size) || 1;
  return {
    combine: first.transpose().mmul(inverse).mul(deviation),
    factors: left.mmul(first).div(deviation),
  };
}

/** Eigenvalues ascending. */
function eigen(symmetric: Matrix): { values: number[]; vectors: Matrix } {
  const result = new EigenvalueDecomposition(symmetric, { assumeSymmetric: true });
  return { values: result.realEigenvalues, vectors: result.eigenvectorMatrix };
}

/** V_i (sum_j R_j^T V_j)^T = sum_j S_ij R_j, up to a factor. */
function overlap(gram: Matrix, rotations: readonly Matrix[], i: number): Matrix {
  const dim = gram.rows / rotations.length;
  const rows = gram.subMatrix(i * dim, (i + 1) * dim - 1, 0, gram.rows - 1);
  return rows.mmul(stack(rotations));
}

/** The orthogonal R of largest trace(R^T M): U W^T of M = U s W^T. */
function nearestRotation(matrix: Matrix): Matrix {
  const { leftSingularVectors, rightSingularVectors } = new SingularValueDecomposition(matrix);
  return leftSingularVectors.mmul(rightSingularVectors.transpose());
}

export function block(gram: Matrix, dim: number, i: number, j: number): Matrix {
  return gram.subMatrix(i * dim, (i + 1) * dim - 1, j * dim, (j + 1) * dim - 1);
}

function stack(parts: readonly Matrix[]): Matrix {
  const [{ rows, columns }] = parts;
  const out = Matrix.zeros(parts.length * rows, columns);
  parts.forEach((part, i) => out.setSubMatrix(part, i * rows, 0));
  return out;
}

/** sqrt(a / b), and 1 where there is nothing to divide by. */
function root(a: number, b: number): number {
  return b > 0 ? Math.sqrt(Math.max(0, a) / b) : 1;
}
