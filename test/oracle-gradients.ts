/**
 * What gradients are judged by, in float64: central differences of the oracle's forward passes, which know no calculus, and
 * analytic gradients, checked against those differences, for cases too large to differentiate element by element.
 * A loss is sum out[i] gradOut[i], so that its gradient by out is gradOut.
 */
import { attentionOracle, scaledProduct, visible, type OracleAttention } from './oracle';
import type { Numbers } from './support/numbers';

// Globals are slow to reach from within jest: taken once.
const { exp, floor, log, max, sqrt, tanh } = Math;

/** Elements are of size 1: the cut of the Taylor series is about 1e-10, that of float64 1e-11. */
const STEP = 1e-5;

/** The gradient of `loss` by each element of x, which is changed meanwhile. */
export function centralDifferences(x: number[], loss: () => number): number[] {
  return x.map((value, i) => {
    x[i] = value + STEP;
    const above = loss();
    x[i] = value - STEP;
    const below = loss();
    x[i] = value;
    return (above - below) / (2 * STEP);
  });
}

export function dot(a: Numbers, b: Numbers): number {
  let sum = 0;
  for (let i = 0; i < a.length; i++) sum += a[i] * b[i];
  return sum;
}

export interface AttentionGradients {
  gradQ: number[];
  gradK: number[];
  gradV: number[];
}

/** Of dot(out, gradOut); no mask, bias, ALiBi, sink logits or dropout. */
export function attentionGradients(a: OracleAttention, gradOut: Numbers): AttentionGradients {
  const { out, lse } = attentionOracle(a);
  const zeros = (x: Numbers): number[] => new Array<number>(x.length).fill(0);
  const to = { gradQ: zeros(a.q), gradK: zeros(a.k), gradV: zeros(a.v) };
  const group = a.heads / a.kvHeads;
  const scale = a.scale ?? 1 / sqrt(a.headDim);
  const softcap = a.softcap ?? 0;
  for (let row = 0; row < a.batch * a.queryTokens * a.heads; row++) {
    const b = floor(row / (a.queryTokens * a.heads));
    const i = floor(row / a.heads) % a.queryTokens;
    const h = row % a.heads;
    const q = row * a.headDim;
    const o = row * a.valueDim;
    for (let j = 0; j < a.keyTokens; j++) {
      if (!visible(a, b, h, i, j)) continue;
      const key = (b * a.keyTokens + j) * a.kvHeads + floor(h / group);
      const [k, v] = [key * a.headDim, key * a.valueDim];
      const product = scaledProduct(a, b, h, i, j);
      const bent = softcap > 0 ? tanh(product / softcap) : 0;
      const weight = exp((softcap > 0 ? softcap * bent : product) - lse[row]);
      let above = 0; // d loss / d weight, less its mean over the row
      for (let d = 0; d < a.valueDim; d++) {
        above += gradOut[o + d] * (a.v[v + d] - out[o + d]);
        to.gradV[v + d] += weight * gradOut[o + d];
      }
      const slope = weight * above * (1 - bent * bent) * scale;
      for (let d = 0; d < a.headDim; d++) {
        to.gradQ[q + d] += slope * a.k[k + d];
        to.gradK[k + d] += slope * a.q[q + d];
      }
    }
  }
  return to;
}

/** Of dot(rmsNormOracle(x, weight, eps), gradOut). */
export function rmsNormGradients(
  x: Numbers,
  weight: Numbers,
  eps: number,
  gradOut: Numbers,
): { gradX: number[]; gradWeight: number[] } {
  const dim = weight.length;
  const gradX: number[] = [];
  const gradWeight = new Array<number>(dim).fill(0);
  for (let t = 0; t < x.length; t += dim) {
    let squares = 0;
    let along = 0;
    for (let d = 0; d < dim; d++) {
      squares += x[t + d] ** 2;
      along += gradOut[t + d] * weight[d] * x[t + d];
    }
    const r = 1 / sqrt(squares / dim + eps);
    for (let d = 0; d < dim; d++) {
      gradX.push(r * gradOut[t + d] * weight[d] - (x[t + d] * r ** 3 * along) / dim);
      gradWeight[d] += gradOut[t + d] * x[t + d] * r;
    }
  }
  return { gradX, gradWeight };
}

/** Of dot(silu(gate) * up, gradOut). */
export function swigluGradients(
  gate: Numbers,
  up: Numbers,
  gradOut: Numbers,
): { gradGate: number[]; gradUp: number[] } {
  const sigmoid = Array.from(gate, (x) => 1 / (1 + exp(-x)));
  return {
    gradGate: sigmoid.map((s, i) => gradOut[i] * up[i] * (s + gate[i] * s * (1 - s))),
    gradUp: sigmoid.map((s, i) => gradOut[i] * gate[i] * s),
  };
}

export interface Loss {
  nll: number;
  kl: number;
  /** p - teacherShare t - (1 - teacherShare) onehot(target) */
  gradient: number[];
}

function softmax(x: Numbers): number[] {
  const top = Array.from(x).reduce((m, y) => max(m, y), -Infinity);
  const weights = Array.from(x, (y) => exp(y - top));
  const sum = weights.reduce((s, w) => s + w, 0);
  return weights.map((w) => w / sum);
}

/** Of one row of logits; its gradient is that of (1 - teacherShare) nll + teacherShare kl. */
export function lossOracle(
  logits: Numbers,
  target: number,
  teacher: Numbers | null,
  teacherShare: number,
): Loss {
  const p = softmax(logits);
  const t = teacher === null ? null : softmax(teacher);
  const kl = t === null ? 0 : t.reduce((s, x, i) => s + (x === 0 ? 0 : x * log(x / p[i])), 0);
  const gradient = p.map(
    (x, i) =>
      (1 - teacherShare) * (x - (i === target ? 1 : 0)) +
      (t === null ? 0 : teacherShare * (x - t[i])),
  );
  return { nll: -log(p[target]), kl, gradient };
}

export interface AdamWState {
  weight: number[];
  m: number[];
  v: number[];
}

/** One step, in the words of the paper [arXiv:1711.05101, algorithm 2], step counting from 1. */
export function adamWStep(
  state: AdamWState,
  gradient: Numbers,
  step: number,
  o: { rate: number; beta1: number; beta2: number; eps: number; decay: number },
): AdamWState {
  const m = state.m.map((x, i) => o.beta1 * x + (1 - o.beta1) * gradient[i]);
  const v = state.v.map((x, i) => o.beta2 * x + (1 - o.beta2) * gradient[i] ** 2);
  const weight = state.weight.map((w, i) => {
    const [first, second] = [m[i] / (1 - o.beta1 ** step), v[i] / (1 - o.beta2 ** step)];
    return w - o.rate * (first / (sqrt(second) + o.eps) + o.decay * w);
  });
  return { weight, m, v };
}
