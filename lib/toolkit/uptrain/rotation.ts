/** RoPE over windows that all begin at position 0, and its backward: the same rotation by the opposite angle. */
import type { Backend } from '../../backend/contract';
import { Rope } from '../../nn/rope';
import type { ModelConfig } from '../../model/types';
import type { Span } from './block';

export class Rotation {
  private readonly cos: Float32Array;
  private readonly sin: Float32Array;
  private readonly minusSin: Float32Array;
  private readonly headDim: number;

  /** @param window the longest */
  constructor(
    private readonly backend: Backend,
    { headDim, rope }: ModelConfig,
    window: number,
  ) {
    const { frequencies } = new Rope({ headDim, ...rope });
    const pairs = frequencies.length;
    const angle = (i: number): number => Math.floor(i / pairs) * frequencies[i % pairs];
    const table = (of: (angle: number) => number): Float32Array =>
      Float32Array.from({ length: window * pairs }, (_, i) => of(angle(i)));
    this.headDim = headDim;
    this.cos = table(Math.cos);
    this.sin = table(Math.sin);
    this.minusSin = this.sin.map((x) => -x);
  }

  /** Turns x [batch * window, heads, headDim] in place. */
  apply(x: Float32Array, heads: number, span: Span): void {
    this.turn(x, heads, span, this.sin);
  }

  /** From the gradient of what apply gave to that of what it was given. */
  applyBackward(gradient: Float32Array, heads: number, span: Span): void {
    this.turn(gradient, heads, span, this.minusSin);
  }

  private turn(x: Float32Array, heads: number, { batch, window }: Span, sin: Float32Array): void {
    const { headDim, cos } = this;
    const size = window * heads * headDim;
    for (let b = 0; b < batch; b++) {
      this.backend.rope({
        x: x.subarray(b * size, (b + 1) * size),
        cos,
        sin,
        tokens: window,
        heads,
        headDim,
        rotaryDim: headDim,
        interleaved: false,
      });
    }
  }
}
