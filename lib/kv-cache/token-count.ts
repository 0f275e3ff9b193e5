/** How many tokens a sequence has, while its layers append one after the other: all advance together or none. */
import { expectedError } from '../core/errors';

const NO_STEP = -1;

export class TokenCount {
  /** Tokens that every layer has appended. */
  length = 0;
  /** Tokens per layer of the step under way. */
  private stepTokens = NO_STEP;
  private layersLeft: number;
  /** 1 where a layer has appended in this step. */
  private readonly appended: Uint8Array;

  constructor(private readonly layers: number) {
    this.layersLeft = layers;
    this.appended = new Uint8Array(layers);
  }

  /** Whether some layers have appended and others not yet. */
  get underWay(): boolean {
    return this.stepTokens !== NO_STEP;
  }

  /** The length that the layers furthest ahead have. */
  get reached(): number {
    return this.underWay ? this.length + this.stepTokens : this.length;
  }

  /** Tokens of one layer: ahead of `length` where it has already appended in this step. */
  of(layer: number): number {
    return this.appended[layer] === 1 ? this.length + this.stepTokens : this.length;
  }

  /** @throws GqaError LAYERS_UNEVEN */
  check(layer: number, tokens: number): void {
    if (this.appended[layer] === 1) {
      const expected = `a layer of ${this.layersLeft} that have not appended in this step`;
      throw expectedError('LAYERS_UNEVEN', 'layer', expected, String(layer));
    }
    if (this.underWay && tokens !== this.stepTokens) {
      const expected = `${this.stepTokens} tokens, as the other layers in this step,`;
      throw expectedError('LAYERS_UNEVEN', 'k', expected, String(tokens));
    }
  }

  /** Takes note of a layer's append; true after the last layer, when the sequence is longer. */
  commit(layer: number, tokens: number): boolean {
    this.stepTokens = tokens;
    this.appended[layer] = 1;
    if (--this.layersLeft > 0) return false;
    this.reset(this.length + tokens);
    return true;
  }

  /** No step is under way, and the length is this. */
  reset(length: number): void {
    this.length = length;
    this.stepTokens = NO_STEP;
    this.layersLeft = this.layers;
    this.appended.fill(0);
  }
}
