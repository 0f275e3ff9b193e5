/**
 * Naive attention and layer arithmetic in float64, the judge of every backend. Shares no code with the package.
 * Layouts are the package's: q, out [batch, tokens, heads, dim], k, v [batch, keys, kvHeads, dim], row-major, as plain
 * arrays of numbers. Written to be read, one loop a definition; nothing here is fast.
 */
import type { Numbers } from './support/numbers';

// Globals are slow to reach from within jest: taken once.
const { abs, exp, floor, log, max, sqrt, tanh } = Math;
const { isFinite } = Number;

export interface OracleAttention {
  q: Numbers;
  /** What keys below sinkTokens meet where that is not q. */
  sinkQ?: Numbers;
  k: Numbers;
  v: Numbers;
  batch: number;
  queryTokens: number;
  keyTokens: number;
  heads: number;
  kvHeads: number;
  headDim: number;
  valueDim: number;
  causal?: boolean;
  window?: number;
  sinkTokens?: number;
  /** 1 / sqrt(headDim) where absent. */
  scale?: number;
  softcap?: number;
  /** [batch | 1, heads | 1, queryTokens, keyTokens], zero hides. */
  mask?: Plane;
  bias?: Plane;
  alibiSlopes?: Numbers;
  sinkLogits?: Numbers;
  dropout?: { probability: number; seed: number };
  /** Asks for statistics. */
  stats?: { sinkTokens: number; recentTokens: number };
}

export interface Plane {
  data: Numbers;
  batch: number;
  heads: number;
}

export interface OracleResult {
  /** [batch, queryTokens, heads, valueDim] */
  out: number[];
  /** [batch, queryTokens, heads] */
  lse: number[];
  /** Largest |score| at any stage of a visible key, 0 where none is; tolerances grow with it. */
  largestScore: number;
  /** Where they were asked for. */
  stats: OracleStats | null;
}

/** Of the weights of each row before dropout, [batch, queryTokens, heads] each. */
export interface OracleStats {
  /** H / ln n of the softmax over the n visible keys; 0 where n <= 1. */
  entropy: number[];
  /** Shares of the whole, a sink logit included: of keys below sinkTokens and the sink logit, and of j > p - recentTokens. */
  sinkMass: number[];
  recentMass: number[];
  maxLogit: number[];
  visible: number[];
}

export function attentionOracle(a: OracleAttention): OracleResult {
  const out = new Array<number>(a.batch * a.queryTokens * a.heads * a.valueDim).fill(0);
  const lse = new Array<number>(a.batch * a.queryTokens * a.heads).fill(-Infinity);
  const stats = a.stats === undefined ? null : noStats(lse.length);
  let largestScore = 0;
  for (let b = 0; b < a.batch; b++) {
    for (let i = 0; i < a.queryTokens; i++) {
      for (let h = 0; h < a.heads; h++) {
        const row = (b * a.queryTokens + i) * a.heads + h;
        const keys: Key[] = [];
        for (let j = 0; j < a.keyTokens; j++) {
          if (!visible(a, b, h, i, j)) continue;
          const product = scaledProduct(a, b, h, i, j);
          const score = finalScore(a, b, h, i, j, product);
          largestScore = max(largestScore, finiteSize(product), finiteSize(score));
          keys.push({ j, score });
        }
        lse[row] = softmaxRow(a, b, i, h, keys, out, row * a.valueDim);
        if (stats !== null) describeRow(a, i, h, keys, stats, row);
      }
    }
  }
  return { out, lse, largestScore, stats };
}

function noStats(rows: number): OracleStats {
  const zeros = (): number[] => new Array<number>(rows).fill(0);
  return {
    entropy: zeros(),
    sinkMass: zeros(),
    recentMass: zeros(),
    maxLogit: zeros().fill(-Infinity),
    visible: zeros(),
  };
}

/** Fills a row of the statistics. */
function describeRow(
  a: OracleAttention,
  i: number,
  h: number,
  keys: Key[],
  stats: OracleStats,
  row: number,
): void {
  if (keys.length === 0) return;
  const top = keys.reduce((m, { score }) => max(m, score), -Infinity);
  const sum = keys.reduce((total, { score }) => total + exp(score - top), 0);
  const sinkLogit = a.sinkLogits === undefined ? 0 : exp(a.sinkLogits[h] - top);
  let entropy = 0;
  let sink = sinkLogit;
  let recent = 0;
  for (const { j, score } of keys) {
    const weight = exp(score - top);
    if (weight > 0) entropy -= (weight / sum) * log(weight / sum);
    if (j < a.stats!.sinkTokens) sink += weight;
    if (j > position(a, i) - a.stats!.recentTokens) recent += weight;
  }
  stats.entropy[row] = keys.length > 1 ? entropy / log(keys.length) : 0;
  stats.sinkMass[row] = sink / (sum + sinkLogit);
  stats.recentMass[row] = recent / (sum + sinkLogit);
  stats.maxLogit[row] = top;
  stats.visible[row] = keys.length;
}

interface Key {
  j: number;
  score: number;
}

function finiteSize(x: number): number {
  return isFinite(x) ? abs(x) : 0;
}

/** Fills out[at .. at + valueDim) and returns the LSE. */
function softmaxRow(
  a: OracleAttention,
  b: number,
  i: number,
  h: number,
  keys: Key[],
  out: number[],
  at: number,
): number {
  if (keys.every(({ score }) => score === -Infinity)) return -Infinity;
  const sink = a.sinkLogits === undefined ? -Infinity : a.sinkLogits[h];
  // The maximum of a NaN is NaN, as it should be.
  const top = keys.reduce((m, { score }) => max(m, score), sink);
  let sum = sink === -Infinity ? 0 : exp(sink - top);
  for (const { score } of keys) sum += exp(score - top);
  const kvHead = floor(h / (a.heads / a.kvHeads));
  for (const { j, score } of keys) {
    const weight = (exp(score - top) / sum) * keepFactor(a, b, h, i, j);
    const from = ((b * a.keyTokens + j) * a.kvHeads + kvHead) * a.valueDim;
    for (let d = 0; d < a.valueDim; d++) out[at + d] += weight * a.v[from + d];
  }
  return top + log(sum);
}

function position(a: OracleAttention, i: number): number {
  return i + a.keyTokens - a.queryTokens;
}

/** Whether row i of head h sees key j. A bias of -Infinity hides a key as the mask does. */
export function visible(a: OracleAttention, b: number, h: number, i: number, j: number): boolean {
  const p = position(a, i);
  if (a.causal && j > p) return false;
  const inWindow = a.window === undefined || j > p - a.window;
  const isSink = a.sinkTokens !== undefined && j < a.sinkTokens;
  if (!inWindow && !isSink) return false;
  if (a.bias !== undefined && at(a, a.bias, b, h, i, j) === -Infinity) return false;
  return a.mask === undefined || at(a, a.mask, b, h, i, j) !== 0;
}

/** scale * q.k */
export function scaledProduct(
  a: OracleAttention,
  b: number,
  h: number,
  i: number,
  j: number,
): number {
  const kvHead = floor(h / (a.heads / a.kvHeads));
  const q = ((b * a.queryTokens + i) * a.heads + h) * a.headDim;
  const k = ((b * a.keyTokens + j) * a.kvHeads + kvHead) * a.headDim;
  const query = a.sinkQ !== undefined && j < (a.sinkTokens ?? 0) ? a.sinkQ : a.q;
  let dot = 0;
  for (let d = 0; d < a.headDim; d++) dot += query[q + d] * a.k[k + d];
  return dot * (a.scale ?? 1 / sqrt(a.headDim));
}

/** After softcap, bias and ALiBi. */
function finalScore(
  a: OracleAttention,
  b: number,
  h: number,
  i: number,
  j: number,
  product: number,
): number {
  const softcap = a.softcap ?? 0;
  let score = softcap > 0 ? softcap * tanh(product / softcap) : product;
  if (a.bias !== undefined) score += at(a, a.bias, b, h, i, j);
  if (a.alibiSlopes !== undefined) score += a.alibiSlopes[h] * (j - position(a, i));
  return score;
}

function at(a: OracleAttention, plane: Plane, b: number, h: number, i: number, j: number): number {
  const batch = plane.batch === 1 ? 0 : b;
  const head = plane.heads === 1 ? 0 : h;
  return plane.data[((batch * plane.heads + head) * a.queryTokens + i) * a.keyTokens + j];
}

/** 0 where attention dropout drops the weight, else 1 / (1 - p). */
function keepFactor(a: OracleAttention, b: number, h: number, i: number, j: number): number {
  if (a.dropout === undefined) return 1;
  let x = BigInt(a.dropout.seed);
  for (const n of [b, h, i, j]) x = murmurFinaliser(x ^ BigInt(n));
  const keep = Number(x) >= floor(a.dropout.probability * 2 ** 32);
  return keep ? 1 / (1 - a.dropout.probability) : 0;
}

function murmurFinaliser(x: bigint): bigint {
  const mask = 0xffffffffn;
  x = ((x ^ (x >> 16n)) * 0x85ebca6bn) & mask;
  x = ((x ^ (x >> 13n)) * 0xc2b2ae35n) & mask;
  return x ^ (x >> 16n);
}

/** Attention over the union of disjoint key sets, from each set's out [rows, dim] and lse [rows]. */
export function mergeOracle(
  parts: { out: Numbers; lse: Numbers }[],
  rows: number,
  dim: number,
): { out: number[]; lse: number[] } {
  const out = new Array<number>(rows * dim).fill(0);
  const lse = new Array<number>(rows).fill(-Infinity);
  for (let r = 0; r < rows; r++) {
    const top = parts.reduce((m, part) => max(m, part.lse[r]), -Infinity);
    if (top === -Infinity) continue;
    const sum = parts.reduce((s, part) => s + exp(part.lse[r] - top), 0);
    lse[r] = top + log(sum);
    for (const part of parts) {
      if (part.lse[r] === -Infinity) continue;
      const weight = exp(part.lse[r] - lse[r]);
      for (let d = 0; d < dim; d++) out[r * dim + d] += weight * part.out[r * dim + d];
    }
  }
  return { out, lse };
}

/** y[m,n] = sum_k x[m,k] w[n,k] + bias[n] */
export function linearOracle(
  x: Numbers,
  w: Numbers,
  bias: Numbers | null,
  rows: number,
  columns: number,
): number[] {
  const tokens = x.length / columns;
  const y: number[] = [];
  for (let m = 0; m < tokens; m++) {
    for (let n = 0; n < rows; n++) {
      let sum = 0;
      for (let k = 0; k < columns; k++) sum += x[m * columns + k] * w[n * columns + k];
      y.push(sum + (bias === null ? 0 : bias[n]));
    }
  }
  return y;
}

/** y[t,:] = x[t,:] / sqrt(mean(x[t,:]^2) + eps) * weight */
export function rmsNormOracle(x: Numbers, weight: Numbers, eps: number): number[] {
  const dim = weight.length;
  const y: number[] = [];
  for (let t = 0; t < x.length / dim; t++) {
    let squares = 0;
    for (let d = 0; d < dim; d++) squares += x[t * dim + d] ** 2;
    const root = sqrt(squares / dim + eps);
    for (let d = 0; d < dim; d++) y.push((x[t * dim + d] / root) * weight[d]);
  }
  return y;
}

/** Rotates the first rotaryDim elements of each head of x [tokens, heads, headDim] by the angles [tokens, rotaryDim / 2]. */
export function ropeOracle(
  x: Numbers,
  cos: Numbers,
  sin: Numbers,
  shape: {
    tokens: number;
    heads: number;
    headDim: number;
    rotaryDim: number;
    interleaved: boolean;
  },
): number[] {
  const { tokens, heads, headDim, rotaryDim, interleaved } = shape;
  const y = Array.from(x);
  const pairs = rotaryDim / 2;
  for (let t = 0; t < tokens; t++) {
    for (let h = 0; h < heads; h++) {
      const head = (t * heads + h) * headDim;
      for (let r = 0; r < pairs; r++) {
        const first = head + (interleaved ? 2 * r : r);
        const second = head + (interleaved ? 2 * r + 1 : r + pairs);
        const [a, b] = [x[first], x[second]];
        y[first] = a * cos[t * pairs + r] - b * sin[t * pairs + r];
        y[second] = a * sin[t * pairs + r] + b * cos[t * pairs + r];
      }
    }
  }
  return y;
}

/** silu(gate) * up */
export function swigluOracle(gate: Numbers, up: Numbers): number[] {
  return Array.from(gate, (g, i) => (g / (1 + exp(-g))) * up[i]);
}
