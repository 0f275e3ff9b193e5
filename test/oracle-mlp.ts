/** Layer norms and activation functions by their definitions, in float64: shares no code with the product. */
import type { Numbers } from './support/numbers';

const { abs, exp, sqrt, tanh, PI } = Math;

export function layerNormOracle(
  x: Numbers,
  weight: Numbers,
  bias: Numbers | null,
  eps: number,
): number[] {
  const dim = weight.length;
  const y: number[] = [];
  for (let t = 0; t < x.length / dim; t++) {
    const row = Array.from(x).slice(t * dim, (t + 1) * dim);
    const mean = row.reduce((a, b) => a + b, 0) / dim;
    const variance = row.reduce((a, b) => a + (b - mean) ** 2, 0) / dim;
    row.forEach((e, d) => {
      y.push(((e - mean) / sqrt(variance + eps)) * weight[d] + (bias === null ? 0 : bias[d]));
    });
  }
  return y;
}

/** The integral of the normal density up to x, by its series, or in the tails by its continued fraction. */
export function normalDistribution(x: number): number {
  const density = exp((-x * x) / 2) / sqrt(2 * PI);
  if (abs(x) < 3) {
    let term = x;
    let sum = x;
    for (let n = 1; n < 200; n++) {
      term *= (x * x) / (2 * n + 1);
      sum += term;
    }
    return 0.5 + density * sum;
  }
  let fraction = abs(x);
  for (let n = 200; n > 0; n--) fraction = abs(x) + n / fraction;
  const tail = density / fraction;
  return x < 0 ? tail : 1 - tail;
}

export type ActivationName = 'silu' | 'gelu' | 'gelu_tanh' | 'relu';

const FUNCTIONS: Record<ActivationName, (x: number) => number> = {
  silu: (x) => x / (1 + exp(-x)),
  gelu: (x) => x * normalDistribution(x),
  gelu_tanh: (x) => 0.5 * x * (1 + tanh(sqrt(2 / PI) * (x + 0.044715 * x ** 3))),
  relu: (x) => (x > 0 ? x : x === x ? 0 : NaN),
};

export function activationOracle(name: ActivationName, x: Numbers): number[] {
  return Array.from(x, FUNCTIONS[name]);
}

/** Gates of gpt-oss: both sides clamped, a steeper sigmoid, up + 1. */
export function swigluOaiOracle(gate: Numbers, up: Numbers): number[] {
  return Array.from(gate, (e, i) => {
    const g = e > 7 ? 7 : e;
    const u = up[i] > 7 ? 7 : up[i] < -7 ? -7 : up[i];
    return (g / (1 + exp(-1.702 * g))) * (u + 1);
  });
}

export function gatedOracle(
  name: ActivationName | 'swiglu_oai',
  gate: Numbers,
  up: Numbers,
): number[] {
  if (name === 'swiglu_oai') return swigluOaiOracle(gate, up);
  return activationOracle(name, gate).map((y, i) => y * up[i]);
}
