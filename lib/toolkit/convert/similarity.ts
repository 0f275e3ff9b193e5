/**
 * How alike KV heads are once each is turned to the other as conversion may turn it (see key-fits.ts and value-fits.ts):
 *   keys:    sum over RoPE pairs of |<z_i, z_j>| / (|K_i| |K_j|),
 *   values:  nuclear norm of V_i V_j^T / (|V_i| |V_j|), the largest trace(R^T V_i V_j^T) of a rotation R.
 * 1: the same but for a rotation; 0: orthogonal. Of the weights alone.
 */
import type { Matrix } from 'ml-matrix';
import { SingularValueDecomposition } from 'ml-matrix';
import { pairGram } from './key-fits';
import { gram } from './matrices';
import type { Projections } from './projections';
import { block } from './value-fits';

/** [kvHeads][kvHeads], symmetric, 1 on the diagonal. */
export interface HeadSimilarity {
  key: number[][];
  value: number[][];
}

export function headSimilarity({
  key,
  value,
  kvHeads,
  headDim,
}: Pick<Projections, 'key' | 'value' | 'kvHeads' | 'headDim'>): HeadSimilarity {
  return alignedSimilarity(gram(key, null), gram(value, null), kvHeads, headDim);
}

/**
 * The same of what heads hold for a text, as they stand and aligned, from sums of k k^T and v v^T over its tokens, of all
 * heads' dims [kvHeads * headDim, kvHeads * headDim].
 */
export function activationSimilarity(
  keys: Matrix,
  values: Matrix,
  kvHeads: number,
  headDim: number,
): { plain: HeadSimilarity; aligned: HeadSimilarity } {
  const cosine = (product: Matrix): number[][] =>
    normalised(kvHeads, (i, j) => block(product, headDim, i, j).trace());
  return {
    plain: { key: cosine(keys), value: cosine(values) },
    aligned: alignedSimilarity(keys, values, kvHeads, headDim),
  };
}

function alignedSimilarity(
  keys: Matrix,
  values: Matrix,
  kvHeads: number,
  headDim: number,
): HeadSimilarity {
  return {
    key: normalised(kvHeads, (i, j) => alignedOverlap(keys, headDim, i, j)),
    value: normalised(kvHeads, (i, j) => nuclearNorm(block(values, headDim, i, j))),
  };
}

/** The mean of both: a group shares keys and values. */
export function meanSimilarity({ key, value }: HeadSimilarity): number[][] {
  return key.map((row, i) => row.map((entry, j) => (entry + value[i][j]) / 2));
}

/** Cosine of the heads' rows as they stand, keys and values together, without turning any. */
export function plainSimilarity({ key, value, kvHeads, headDim }: Projections): number[][] {
  const both = [gram(key, null), gram(value, null)].map((product) =>
    normalised(kvHeads, (i, j) => block(product, headDim, i, j).trace()),
  );
  return meanSimilarity({ key: both[0], value: both[1] });
}

function alignedOverlap(keys: Matrix, headDim: number, i: number, j: number): number {
  let sum = 0;
  for (let pair = 0; pair < headDim / 2; pair++) {
    sum += Math.hypot(...pairGram(keys, headDim, pair)(i, j));
  }
  return sum;
}

function nuclearNorm(matrix: Matrix): number {
  const { diagonal } = new SingularValueDecomposition(matrix);
  return diagonal.reduce((sum, value) => sum + value, 0);
}

/** overlap(i, j) / sqrt(overlap(i, i) overlap(j, j)); heads of zeros are like nothing but themselves. */
function normalised(heads: number, overlap: (i: number, j: number) => number): number[][] {
  const own = Array.from({ length: heads }, (_, i) => overlap(i, i));
  const out = own.map(() => own.map(() => 1));
  for (let i = 0; i < heads; i++) {
    for (let j = 0; j < i; j++) {
      const norm = Math.sqrt(own[i] * own[j]);
      out[i][j] = out[j][i] = norm > 0 ? overlap(i, j) / norm : 0;
    }
  }
  return out;
}
