/** The residual stream of all windows of a text, [tokens, hiddenSize] f32, one window after the other. */
import { allocate } from '../core/validate';

export class HiddenStates {
  readonly windows: number;
  private readonly data: Float32Array;
  /** First token of each window, and the number of all. */
  private readonly starts: readonly number[];

  /** @throws GqaError OUT_OF_MEMORY */
  constructor(
    readonly ids: readonly Int32Array[],
    readonly hiddenSize: number,
  ) {
    this.windows = ids.length;
    const starts = [0];
    for (const { length } of ids) starts.push(starts[starts.length - 1] + length);
    this.starts = starts;
    const size = this.tokens * hiddenSize;
    this.data = allocate(() => new Float32Array(size), 4 * size, 'hidden states');
  }

  get tokens(): number {
    return this.starts[this.windows];
  }

  /** [tokens of the window, hiddenSize], a view. */
  window(index: number): Float32Array {
    const { hiddenSize, starts } = this;
    return this.data.subarray(starts[index] * hiddenSize, starts[index + 1] * hiddenSize);
  }

  *rows(): Generator<Float32Array> {
    for (let i = 0; i < this.windows; i++) yield this.window(i);
  }

  copy(): HiddenStates {
    const copy = new HiddenStates(this.ids, this.hiddenSize);
    copy.data.set(this.data);
    return copy;
  }
}
