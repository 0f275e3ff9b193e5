/** A Llama forward pass in float64 loops, straight from the architecture's definition: what the runner is held against. */
// Globals are slow to reach from within jest: taken once.
const { cos, exp, floor, max, sin, sqrt } = Math;

export interface ReferenceConfig {
  vocab: number;
  hidden: number;
  intermediate: number;
  layers: number;
  heads: number;
  kvHeads: number;
  /** Where layers differ, each layer's number of KV heads. */
  layerKvHeads?: readonly number[];
  headDim: number;
  eps: number;
  theta: number;
  /** Which elements a rotation pairs: GGUF stores Q and K rows for neighbours, Hugging Face for halves. */
  ropePairs: 'neighbours' | 'halves';
  /** Angle of pair r for one position; theta^(-r / pairs) where absent. */
  frequency?: (r: number) => number;
  /** Projections with a bias, by their names in `ReferenceWeights`: `attn_q`, ... */
  biased?: readonly string[];
  /** A query sees this many keys, itself included, and the first sinkTokens. */
  window?: number;
  sinkTokens?: number;
  /** 'cache': at every row, the keys that it sees are numbered anew from 0, and turned by these numbers. */
  positions?: 'absolute' | 'cache';
}

/** A matrix [out, in] or a vector, by its GGUF name: `blk.0.attn_q.weight`, `output_norm.weight`. */
export type ReferenceWeights = (name: string) => ArrayLike<number>;

/** Logits [vocab] after the last of ids. */
export function referenceLogits(
  c: ReferenceConfig,
  weights: ReferenceWeights,
  ids: number[],
): Float64Array {
  const embedding = weights('token_embd.weight');
  const x = ids.map((id) =>
    Float64Array.from({ length: c.hidden }, (_, d) => embedding[id * c.hidden + d]),
  );
  for (let layer = 0; layer < c.layers; layer++) {
    const w = (name: string) => weights(`blk.${layer}.${name}.weight`);
    const project = (rows: Float64Array[], name: string, outputs: number) => {
      const y = matmul(rows, w(name), outputs);
      if (c.biased?.includes(name)) {
        const bias = weights(`blk.${layer}.${name}.bias`);
        for (const row of y) row.forEach((_, n) => (row[n] += bias[n]));
      }
      return y;
    };
    const normed = x.map((row) => norm(row, w('attn_norm'), c.eps));
    const q = project(normed, 'attn_q', c.heads * c.headDim);
    const kvHeads = c.layerKvHeads?.[layer] ?? c.kvHeads;
    const k = project(normed, 'attn_k', kvHeads * c.headDim);
    const v = project(normed, 'attn_v', kvHeads * c.headDim);
    if (c.positions !== 'cache') {
      q.forEach((row, position) => rotate(c, row, position));
      k.forEach((row, position) => rotate(c, row, position));
    }
    const mixed = q.map((row, i) => attend(c, kvHeads, row, i, k, v));
    add(x, project(mixed, 'attn_output', c.hidden));
    const inner = x.map((row) => norm(row, w('ffn_norm'), c.eps));
    const gate = project(inner, 'ffn_gate', c.intermediate);
    const up = project(inner, 'ffn_up', c.intermediate);
    gate.forEach((row, t) => row.forEach((g, n) => (row[n] = (g / (1 + exp(-g))) * up[t][n])));
    add(x, project(gate, 'ffn_down', c.hidden));
  }
  const last = norm(x[x.length - 1], weights('output_norm.weight'), c.eps);
  return matmul([last], weights('output.weight'), c.vocab)[0];
}

function norm(x: Float64Array, weight: ArrayLike<number>, eps: number): Float64Array {
  const root = sqrt(x.reduce((sum, y) => sum + y * y, 0) / x.length + eps);
  return x.map((y, d) => (y / root) * weight[d]);
}

function matmul(x: Float64Array[], weight: ArrayLike<number>, rows: number): Float64Array[] {
  const columns = weight.length / rows;
  return x.map((row) => {
    const y = new Float64Array(rows);
    for (let n = 0; n < rows; n++) {
      let sum = 0;
      for (let k = 0; k < columns; k++) sum += row[k] * weight[n * columns + k];
      y[n] = sum;
    }
    return y;
  });
}

function rotate(c: ReferenceConfig, row: Float64Array, position: number): void {
  const pairs = c.headDim / 2;
  for (let head = 0; head < row.length; head += c.headDim) {
    for (let r = 0; r < pairs; r++) {
      const first = head + (c.ropePairs === 'halves' ? r : 2 * r);
      const second = first + (c.ropePairs === 'halves' ? pairs : 1);
      const angle = position * (c.frequency?.(r) ?? c.theta ** (-r / pairs));
      const [a, b] = [row[first], row[second]];
      row[first] = a * cos(angle) - b * sin(angle);
      row[second] = a * sin(angle) + b * cos(angle);
    }
  }
}

function rotated(c: ReferenceConfig, row: Float64Array, position: number): Float64Array {
  const copy = row.slice();
  rotate(c, copy, position);
  return copy;
}

/** Row i of a causal attention over the keys 0 to i that the window shows. */
function attend(
  c: ReferenceConfig,
  kvHeads: number,
  q: Float64Array,
  i: number,
  k: Float64Array[],
  v: Float64Array[],
): Float64Array {
  const out = new Float64Array(q.length);
  const seen = Array.from({ length: i + 1 }, (_, j) => j).filter(
    (j) => j > i - (c.window ?? Infinity) || j < (c.sinkTokens ?? 0),
  );
  const numbered = c.positions === 'cache';
  const query = numbered ? rotated(c, q, seen.length - 1) : q;
  const keys = seen.map((j, slot) => (numbered ? rotated(c, k[j], slot) : k[j]));
  for (let h = 0; h < c.heads; h++) {
    const kv = floor(h / (c.heads / kvHeads)) * c.headDim;
    const scores = keys.map((key) => {
      let dot = 0;
      for (let d = 0; d < c.headDim; d++) dot += query[h * c.headDim + d] * key[kv + d];
      return dot / sqrt(c.headDim);
    });
    const top = max(...scores);
    const sum = scores.reduce((s, score) => s + exp(score - top), 0);
    seen.forEach((j, n) => {
      for (let d = 0; d < c.headDim; d++) {
        out[h * c.headDim + d] += (exp(scores[n] - top) / sum) * v[j][kv + d];
      }
    });
  }
  return out;
}

function add(x: Float64Array[], y: Float64Array[]): void {
  x.forEach((row, t) => row.forEach((_, d) => (row[d] += y[t][d])));
}
