/** Activation functions of MLPs, by the field's names. */

/**
 * 'silu': x sigmoid(x). 'gelu': x Phi(x). 'gelu_tanh': x (1 + tanh(sqrt(2 / pi) (x + 0.044715 x^3))) / 2. 'swiglu_oai',
 * of gated MLPs alone: gate sigmoid(1.702 gate) (up + 1), gate at most 7 and up within 7 (gpt-oss).
 */
export type Activation = 'silu' | 'gelu' | 'gelu_tanh' | 'relu' | 'swiglu_oai';

/** config.json's names. */
export const ACTIVATIONS: Readonly<Record<string, Activation>> = {
  silu: 'silu',
  swish: 'silu',
  gelu: 'gelu',
  gelu_new: 'gelu_tanh',
  gelu_fast: 'gelu_tanh',
  gelu_pytorch_tanh: 'gelu_tanh',
  relu: 'relu',
};

const OAI_LIMIT = 7;
const OAI_SLOPE = 1.702;

/** x[i] = act(x[i]), for i < count. */
export function activate(x: Float32Array, count: number, activation: Activation): void {
  const apply = FUNCTIONS[activation];
  for (let i = 0; i < count; i++) x[i] = apply(x[i]);
}

/** gate[i] = act(gate[i]) * up[i], for i < count. */
export function gate(
  gates: Float32Array,
  up: Float32Array,
  count: number,
  activation: Activation,
): void {
  if (activation === 'swiglu_oai') {
    for (let i = 0; i < count; i++) {
      const g = Math.min(gates[i], OAI_LIMIT);
      const u = Math.min(Math.max(up[i], -OAI_LIMIT), OAI_LIMIT);
      gates[i] = g * sigmoid(OAI_SLOPE * g) * (u + 1);
    }
    return;
  }
  const apply = FUNCTIONS[activation];
  for (let i = 0; i < count; i++) gates[i] = apply(gates[i]) * up[i];
}

const FUNCTIONS: Readonly<Record<Activation, (x: number) => number>> = {
  silu: (x) => x * sigmoid(x),
  gelu: (x) => 0.5 * x * (1 + erf(x / Math.SQRT2)),
  gelu_tanh: (x) => 0.5 * x * (1 + Math.tanh(Math.sqrt(2 / Math.PI) * (x + 0.044715 * x ** 3))),
  relu: (x) => Math.max(x, 0),
  swiglu_oai: (x) => x * sigmoid(OAI_SLOPE * x),
};

function sigmoid(x: number): number {
  return 1 / (1 + Math.exp(-x));
}

/** Abramowitz and Stegun 7.1.5 (the series, |x| < 3) and 7.1.14 (the continued fraction): full float64 precision. */
function erf(x: number): number {
  const a = Math.abs(x);
  if (a > 6) return Math.sign(x);
  if (a < 3) {
    let term = x;
    let sum = x;
    for (let n = 1; Math.abs(term) > 1e-17 * Math.abs(sum); n++) {
      term *= (-x * x) / n;
      sum += term / (2 * n + 1);
    }
    return (2 / Math.sqrt(Math.PI)) * sum;
  }
  let fraction = a;
  for (let n = 60; n > 0; n--) fraction = a + n / 2 / fraction;
  return Math.sign(x) * (1 - Math.exp(-a * a) / (fraction * Math.sqrt(Math.PI)));
}
