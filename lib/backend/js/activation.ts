/** Activation functions of MLPs, see Activation of contract.ts; everything between f32 in and out is f64. */
import type { ActivateArgs, Activation } from '../contract';

// Names of the module's own: in a vm context (jest) finding a global costs more than the exponential.
const { exp, max, min } = Math;

type Function1 = (x: number) => number;

/** e^(z^2) erfc(z) / t as a polynomial of t = 1 / (1 + z / 2): Numerical Recipes, erfcc. */
const ERFC = [
  -1.26551223, 1.00002368, 0.37409196, 0.09678418, -0.18628806, 0.27886807, -1.13520398, 1.48851587,
  -0.82215223, 0.17087277,
];

/** 1 - erf(z) for z >= 0, within 1.2e-7 of itself: no cancellation in the tail. */
function erfc(z: number): number {
  const t = 1 / (1 + z / 2);
  let p = 0;
  for (let i = ERFC.length - 1; i >= 0; i--) p = p * t + ERFC[i];
  return t * exp(p - z * z);
}

function silu(x: number): number {
  return x / (1 + exp(-x));
}

function gelu(x: number): number {
  const tail = erfc(Math.abs(x) * Math.SQRT1_2) / 2;
  return x * (x < 0 ? tail : 1 - tail);
}

/** x / 2 (1 + tanh u) = x / (1 + e^-2u) */
function geluTanh(x: number): number {
  const u = Math.sqrt(2 / Math.PI) * (x + 0.044715 * x * x * x);
  return x / (1 + exp(-2 * u));
}

function relu(x: number): number {
  return max(0, x);
}

const FUNCTIONS: Readonly<Record<Exclude<Activation, 'swiglu_oai'>, Function1>> = {
  silu,
  gelu,
  gelu_tanh: geluTanh,
  relu,
};

function swigluOai(gate: number, up: number): number {
  const g = min(7, gate);
  return (g / (1 + exp(-1.702 * g))) * (max(-7, min(7, up)) + 1);
}

/** out = f(x), or f(x) * second where that is not null. */
export function activate({ activation, x, second, out, count }: ActivateArgs): void {
  if (activation === 'swiglu_oai') {
    // Of gates only.
    for (let i = 0; i < count; i++) out[i] = swigluOai(x[i], second![i]);
    return;
  }
  const f = FUNCTIONS[activation];
  if (second === null) for (let i = 0; i < count; i++) out[i] = f(x[i]);
  else for (let i = 0; i < count; i++) out[i] = f(x[i]) * second[i];
}
