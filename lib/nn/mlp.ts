/** MLPs of decoder blocks: two layers with an activation between them, gated or not. */
import type { Activation } from './activation';
import { FusedLinear, type Norm } from './fused-linear';
import type { Linear } from './linear';
import { addProjection, type Sublayer, type Tokens } from './sublayer';

interface MlpEnds {
  norm: Norm | null;
  down: Linear;
  outputNorm?: Norm | null;
  activation: Activation;
}

export interface GatedMlpParts extends MlpEnds {
  gate: Linear;
  up: Linear;
}

export interface MlpParts extends MlpEnds {
  up: Linear;
}

/** out += outputNorm(down(act(gate(n)) * up(n))), n = norm(x) */
export class GatedMlp implements Sublayer {
  private readonly widen: FusedLinear;
  private readonly down: FusedLinear;

  constructor(private readonly parts: GatedMlpParts) {
    const { norm, gate, up, down, outputNorm, activation } = parts;
    this.widen = new FusedLinear(norm, [gate, up], 'gated', activation);
    this.down = new FusedLinear(null, [down], outputNorm ? 'write' : 'add');
  }

  get bytes(): number {
    const { norm, gate, up, down, outputNorm } = this.parts;
    const ends = (norm?.bytes ?? 0) + (outputNorm?.bytes ?? 0);
    return ends + gate.bytes + up.bytes + down.bytes;
  }

  addTo(out: Float32Array, x: Float32Array, tokens: Tokens): void {
    const { rows, scratch } = tokens;
    const { gate, outputNorm } = this.parts;
    const gated = scratch.rows('gated', gate.outFeatures);
    this.widen.run(x, rows, [gated], scratch);
    addProjection(this.down, outputNorm ?? null, gated, out, tokens);
  }

  dispose(): void {
    const { gate, up, down } = this.parts;
    for (const linear of [gate, up, down]) linear.dispose();
  }
}

/** out += outputNorm(down(act(up(n)))), n = norm(x) */
export class Mlp implements Sublayer {
  private readonly widen: FusedLinear;
  private readonly down: FusedLinear;

  constructor(private readonly parts: MlpParts) {
    const { norm, up, down, outputNorm, activation } = parts;
    this.widen = new FusedLinear(norm, [up], 'activated', activation);
    this.down = new FusedLinear(null, [down], outputNorm ? 'write' : 'add');
  }

  get bytes(): number {
    const { norm, up, down, outputNorm } = this.parts;
    return (norm?.bytes ?? 0) + (outputNorm?.bytes ?? 0) + up.bytes + down.bytes;
  }

  addTo(out: Float32Array, x: Float32Array, tokens: Tokens): void {
    const { up, outputNorm } = this.parts;
    const widened = tokens.scratch.rows('gated', up.outFeatures);
    this.widen.run(x, tokens.rows, [widened], tokens.scratch);
    addProjection(this.down, outputNorm ?? null, widened, out, tokens);
  }

  dispose(): void {
    this.parts.up.dispose();
    this.parts.down.dispose();
  }
}
