/**
 * Linear layers over one input, normed before and combined after, in one backend call:
 *   'write'  out_i = layer_i(norm(x))          'add'  out_i += layer_i(norm(x))
 *   'gated'  out_0 = act(layer_0(n)) * layer_1(n)
 *   'activated'  out_i = act(layer_i(n)),      n = norm(x)
 */
import { getBackend } from '../backend';
import type { Activation, Backend, FusedLinearArgs } from '../backend/contract';
import type { LayerNorm } from './layer-norm';
import type { Linear } from './linear';
import type { RmsNorm } from './rms-norm';
import type { Scratch } from './scratch';

export type Norm = RmsNorm | LayerNorm;
export type Combine = FusedLinearArgs['combine'];

const NO_ROWS = new Float32Array(0);

export class FusedLinear {
  private readonly backend: Backend = getBackend();
  private readonly args: FusedLinearArgs;

  /** `activation` is for 'gated' and 'activated'. */
  constructor(
    norm: Norm | null,
    layers: readonly Linear[],
    combine: Combine,
    activation: Activation = 'silu',
  ) {
    this.args = {
      x: NO_ROWS,
      tokens: 0,
      norm: norm?.prologue ?? null,
      parts: layers.map((layer) => layer.part(NO_ROWS)),
      combine,
      activation,
      precision: 'exact',
    };
  }

  /** x [rows, inFeatures]; outs: one for each layer, of 'gated' one for both, [rows, outFeatures]. */
  run(x: Float32Array, rows: number, outs: readonly Float32Array[], scratch: Scratch): void {
    const { args } = this;
    args.x = x;
    args.tokens = rows;
    args.precision = scratch.precision;
    for (let i = 0; i < outs.length; i++) args.parts[i].out = outs[i];
    this.backend.fusedLinear(args);
  }
}
