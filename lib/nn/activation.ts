/** Activation functions of MLPs, by the field's names. */
import { getBackend } from '../backend';
import type { Activation } from '../backend/contract';

export type { Activation };

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

/** x[i] = act(x[i]), for i < count; any but 'swiglu_oai', which is of gates. */
export function activate(x: Float32Array, count: number, activation: Activation): void {
  getBackend().activate({ activation, x, second: null, out: x, count });
}

/** gate[i] = act(gate[i]) * up[i], for i < count. */
export function gate(
  gates: Float32Array,
  up: Float32Array,
  count: number,
  activation: Activation,
): void {
  getBackend().activate({ activation, x: gates, second: up, out: gates, count });
}
