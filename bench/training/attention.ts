/** Attention, forward and backward, over batches of whole windows. */
import { getBackend } from '../../lib/backend';
import type { AttendBackwardArgs } from '../../lib/backend';
import { f32, rowError, type Subject } from './subject';

interface Shape {
  batch: number;
  tokens: number;
  heads: number;
  kvHeads: number;
  dim: number;
  window?: number;
}

/** The stories models, SmolLM2, Llama 3; then odd ones. */
const SHAPES: readonly Shape[] = [
  { batch: 8, tokens: 384, heads: 6, kvHeads: 6, dim: 32 },
  { batch: 8, tokens: 384, heads: 6, kvHeads: 2, dim: 32 },
  { batch: 1, tokens: 512, heads: 9, kvHeads: 3, dim: 64 },
  { batch: 1, tokens: 2048, heads: 9, kvHeads: 3, dim: 64 },
  { batch: 1, tokens: 2048, heads: 9, kvHeads: 3, dim: 64, window: 512 },
  { batch: 1, tokens: 1024, heads: 32, kvHeads: 8, dim: 128 },
  { batch: 2, tokens: 333, heads: 5, kvHeads: 1, dim: 80 },
  { batch: 1, tokens: 1000, heads: 7, kvHeads: 7, dim: 33 },
];

/** Pairs of a row and a key that it sees, over all heads. */
function visiblePairs({ batch, tokens, heads, window = Infinity }: Shape): number {
  let seen = 0;
  for (let i = 0; i < tokens; i++) seen += Math.min(i + 1, window);
  return batch * heads * seen;
}

function problem(shape: Shape): AttendBackwardArgs {
  const { batch, tokens, heads, kvHeads, dim, window = Infinity } = shape;
  const [rows, keys] = [batch * tokens * heads, batch * tokens * kvHeads];
  return {
    q: f32(rows * dim, 1),
    k: f32(keys * dim, 2),
    v: f32(keys * dim, 3),
    out: new Float32Array(rows * dim),
    lse: new Float32Array(rows),
    gradOut: f32(rows * dim, 4),
    gradQ: new Float32Array(rows * dim),
    gradK: new Float32Array(keys * dim),
    gradV: new Float32Array(keys * dim),
    ...{ batch, queryTokens: tokens, keyTokens: tokens, heads, kvHeads },
    ...{ headDim: dim, valueDim: dim, causal: true, window, sinkTokens: 0 },
    ...{ scale: 1 / Math.sqrt(dim), softcap: 0 },
  };
}

function forward(args: AttendBackwardArgs): void {
  getBackend().attend({
    ...args,
    ...{ sinkQ: null, qDtype: 'f32', outDtype: 'f32', mask: null, bias: null, alibiSlopes: null },
    ...{ sinkLogits: null, dropout: null, stats: null, precision: 'exact' },
    kv: { type: 'tensor', k: args.k, v: args.v, dtype: 'f32' },
  });
}

function dot(a: Float32Array, at: number, b: Float32Array, bt: number, dim: number): number {
  let sum = 0;
  for (let d = 0; d < dim; d++) sum += a[at + d] * b[bt + d];
  return sum;
}

/** P and dS of a row of [tokens, heads] and a key of [tokens, kvHeads] of the first batch element, in float64. */
function pairOf(args: AttendBackwardArgs, row: number, key: number): [number, number] {
  const { q, k, v, out, lse, gradOut, headDim: D, scale } = args;
  const weight = Math.exp(scale * dot(q, row * D, k, key * D, D) - lse[row]);
  const mean = dot(gradOut, row * D, out, row * D, D);
  return [weight, scale * weight * (dot(gradOut, row * D, v, key * D, D) - mean)];
}

/** The gradients of one token's first query head and of its key and value, of one KV head. */
function tokenError(args: AttendBackwardArgs, token: number, kvHead: number): number {
  const { heads, kvHeads, queryTokens, headDim: D, window } = args;
  const group = heads / kvHeads;
  const [gradQ, gradK, gradV] = [1, 2, 3].map(() => new Float64Array(D));
  const row = token * heads + kvHead * group;
  for (let j = Math.max(0, token - window + 1); j <= token; j++) {
    const [, slope] = pairOf(args, row, j * kvHeads + kvHead);
    for (let d = 0; d < D; d++) gradQ[d] += slope * args.k[(j * kvHeads + kvHead) * D + d];
  }
  const key = token * kvHeads + kvHead;
  for (let i = token; i < Math.min(queryTokens, token + window); i++) {
    for (let g = 0; g < group; g++) {
      const at = i * heads + kvHead * group + g;
      const [weight, slope] = pairOf(args, at, key);
      for (let d = 0; d < D; d++) {
        gradK[d] += slope * args.q[at * D + d];
        gradV[d] += weight * args.gradOut[at * D + d];
      }
    }
  }
  return Math.max(
    rowError(args.gradQ, row * D, gradQ),
    rowError(args.gradK, key * D, gradK),
    rowError(args.gradV, key * D, gradV),
  );
}

/** The row of the output whose gradient tokenError looks at. */
function outError(args: AttendBackwardArgs, token: number, kvHead: number): number {
  const { heads, kvHeads, headDim: D, window } = args;
  const row = token * heads + (kvHead * heads) / kvHeads;
  const out = new Float64Array(D);
  let sum = 0;
  for (let j = Math.max(0, token - window + 1); j <= token; j++) {
    const key = j * kvHeads + kvHead;
    const weight = Math.exp(args.scale * dot(args.q, row * D, args.k, key * D, D));
    sum += weight;
    for (let d = 0; d < D; d++) out[d] += weight * args.v[key * D + d];
  }
  return rowError(
    args.out,
    row * D,
    out.map((x) => x / sum),
  );
}

export function attentionSubjects(): Subject[] {
  return SHAPES.flatMap((shape) => {
    const args = problem(shape);
    const { batch, tokens, heads, kvHeads, dim, window } = shape;
    const name = `attention ${batch} x ${tokens}, ${heads}/${kvHeads}/${dim}${window ? `, window ${window}` : ''}`;
    const work = visiblePairs(shape) * dim;
    const places = [0.2, 0.5, 0.99].map((at) => [
      Math.floor(at * tokens),
      Math.floor(at * kvHeads),
    ]);
    const worst = (errorAt: typeof tokenError) =>
      Math.max(...places.map(([token, kvHead]) => errorAt(args, token, kvHead)));
    return [
      {
        name: `${name}, forward`,
        flop: 4 * work,
        run: () => forward(args),
        error: () => worst(outError),
      },
      {
        name: `${name}, backward`,
        flop: 10 * work,
        run: () => getBackend().attendBackward(args),
        error: () => worst(tokenError),
      },
    ];
  });
}
