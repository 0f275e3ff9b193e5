/**
 * Linear layers over one input, normed before and combined after, in as few backend calls as that takes:
 *   'write'  out_i = layer_i(norm(x))          'add'  out_i += layer_i(norm(x))
 *   'gated'  out_0 = act(layer_0(n)) * layer_1(n)
 *   'activated'  out_0 = act(layer_0(n)),      n = norm(x)
 */
import { getBackend } from '../backend';
import type { Backend, FusedLinearArgs } from '../backend/contract';
import { activate, gate, type Activation } from './activation';
import type { LayerNorm } from './layer-norm';
import type { Linear } from './linear';
import { RmsNorm } from './rms-norm';
import type { Scratch } from './scratch';

export type Norm = RmsNorm | LayerNorm;
export type Combine = 'write' | 'add' | 'gated' | 'activated';

const NO_ROWS = new Float32Array(0);

export class FusedLinear {
  private readonly backend: Backend = getBackend();
  private readonly args: FusedLinearArgs;

  /** `activation` is for 'gated' and 'activated'. */
  constructor(
    private readonly norm: Norm | null,
    private readonly layers: readonly Linear[],
    private readonly combine: Combine,
    private readonly activation: Activation = 'silu',
  ) {
    const fused = combine === 'gated' && activation === 'silu';
    this.args = {
      x: NO_ROWS,
      tokens: 0,
      norm: norm instanceof RmsNorm ? norm.prologue : null,
      parts: layers.map((layer) => layer.part(NO_ROWS)),
      combine: fused ? 'swiglu' : combine === 'add' ? 'add' : 'write',
      precision: 'exact',
    };
  }

  /** x [rows, inFeatures]; outs: one for each layer, [rows, outFeatures], the second of 'gated' is scratch. */
  run(x: Float32Array, rows: number, outs: readonly Float32Array[], scratch: Scratch): void {
    const { args, norm, layers } = this;
    args.x = x;
    if (norm !== null && !(norm instanceof RmsNorm)) {
      args.x = scratch.rows('normed', norm.dim);
      norm.apply(x, args.x, rows);
    }
    args.tokens = rows;
    args.precision = scratch.precision;
    for (let i = 0; i < layers.length; i++) args.parts[i].out = outs[i];
    this.backend.fusedLinear(args);
    const count = rows * layers[0].outFeatures;
    if (this.combine === 'activated') activate(outs[0], count, this.activation);
    else if (this.combine === 'gated' && args.combine !== 'swiglu') {
      gate(outs[0], outs[1], count, this.activation);
    }
  }
}
