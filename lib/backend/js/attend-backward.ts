/**
 * The gradients of attention, key by key of each row: P is made anew from q, k and the LSE, and nothing of size
 * [queryTokens, keyTokens] is held. q [batch, Tq, heads, D], k and v [batch, Tk, kvHeads, D | Dv]; sums in f64.
 */
import type { AttendBackwardArgs } from '../contract-training';

// Names of the module's own: in a vm context (jest) finding a global costs more than the exponential.
const { exp, max: larger, min: smaller, tanh } = Math;

/** Where one (row, head) lies: the first elements of its q and of its out, and the sums of its gradient. */
interface Row {
  q: number;
  out: number;
  lse: number;
  delta: number;
  gradQ: Float64Array;
}

/** The keys of one KV head: sums of their gradients, [keyTokens, D] and [keyTokens, Dv]. */
interface KeySums {
  k: Float64Array;
  v: Float64Array;
}

export function attendBackward(args: AttendBackwardArgs): void {
  const { batch, queryTokens, keyTokens, heads, kvHeads, headDim, valueDim } = args;
  const group = heads / kvHeads;
  const sums = {
    k: new Float64Array(keyTokens * headDim),
    v: new Float64Array(keyTokens * valueDim),
  };
  const row: Row = { q: 0, out: 0, lse: 0, delta: 0, gradQ: new Float64Array(headDim) };
  for (let b = 0; b < batch; b++) {
    for (let kvHead = 0; kvHead < kvHeads; kvHead++) {
      sums.k.fill(0);
      sums.v.fill(0);
      for (let i = 0; i < queryTokens; i++) {
        for (let g = 0; g < group; g++) {
          const index = (b * queryTokens + i) * heads + kvHead * group + g;
          row.q = index * headDim;
          row.out = index * valueDim;
          row.lse = args.lse[index];
          attendRowBackward(args, row, sums, i + keyTokens - queryTokens, b, kvHead);
        }
      }
      writeKeys(args.gradK, sums.k, headDim, args, b, kvHead);
      writeKeys(args.gradV, sums.v, valueDim, args, b, kvHead);
    }
  }
}

/** The row at `position`: writes its gradQ, adds its part to the sums of the keys that it sees. */
function attendRowBackward(
  args: AttendBackwardArgs,
  row: Row,
  sums: KeySums,
  position: number,
  b: number,
  kvHead: number,
): void {
  const { out, gradOut, gradQ, keyTokens, headDim, valueDim, causal, window, sinkTokens } = args;
  row.delta = 0;
  for (let d = 0; d < valueDim; d++) row.delta += gradOut[row.out + d] * out[row.out + d];
  row.gradQ.fill(0);
  const end = causal ? larger(0, smaller(keyTokens, position + 1)) : keyTokens;
  const start = smaller(end, larger(0, position - window + 1));
  // A row that sees no key has no part; neither has one that attend gave an LSE of -Infinity for other reasons.
  if (row.lse !== -Infinity) {
    for (let j = 0; j < smaller(sinkTokens, start); j++) keyBackward(args, row, sums, j, b, kvHead);
    for (let j = start; j < end; j++) keyBackward(args, row, sums, j, b, kvHead);
  }
  for (let d = 0; d < headDim; d++) gradQ[row.q + d] = row.gradQ[d];
}

/** What row and key j give each other: P, gradS, and with them gradQ, gradK, gradV. */
function keyBackward(
  args: AttendBackwardArgs,
  row: Row,
  sums: KeySums,
  j: number,
  b: number,
  kvHead: number,
): void {
  const { q, k, v, gradOut, keyTokens, kvHeads, headDim, valueDim, scale, softcap } = args;
  const key = ((b * keyTokens + j) * kvHeads + kvHead) * headDim;
  const value = ((b * keyTokens + j) * kvHeads + kvHead) * valueDim;
  let score = 0;
  for (let d = 0; d < headDim; d++) score += q[row.q + d] * k[key + d];
  score *= scale;
  let slope = scale;
  if (softcap > 0) {
    const capped = tanh(score / softcap);
    score = softcap * capped;
    slope *= 1 - capped * capped;
  }
  const p = exp(score - row.lse);
  let gradP = 0;
  for (let d = 0; d < valueDim; d++) {
    gradP += gradOut[row.out + d] * v[value + d];
    sums.v[j * valueDim + d] += p * gradOut[row.out + d];
  }
  const gradS = p * (gradP - row.delta) * slope;
  for (let d = 0; d < headDim; d++) {
    row.gradQ[d] += gradS * k[key + d];
    sums.k[j * headDim + d] += gradS * q[row.q + d];
  }
}

/** Rounds the sums of one KV head [keyTokens, dim] to their places in [batch, keyTokens, kvHeads, dim]. */
function writeKeys(
  gradient: Float32Array,
  sums: Float64Array,
  dim: number,
  { keyTokens, kvHeads }: AttendBackwardArgs,
  b: number,
  kvHead: number,
): void {
  for (let j = 0; j < keyTokens; j++) {
    const to = ((b * keyTokens + j) * kvHeads + kvHead) * dim;
    for (let d = 0; d < dim; d++) gradient[to + d] = sums[j * dim + d];
  }
}
