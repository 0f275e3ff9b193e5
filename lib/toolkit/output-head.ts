/** The end of a model: final norm and output head, from hidden states to logits and what they are worth. */
import { getBackend } from '../backend';
import type { ModelConfig, WeightSource } from '../model/types';
import { Linear } from '../nn/linear';
import { RmsNorm } from '../nn/rms-norm';
import type { HiddenStates } from './hidden-states';

/** How well states predict the text they came from. Sums over scored tokens: of each window all but the first. */
export interface Prediction {
  tokens: number;
  /** Of -ln p(token), in nats. */
  nll: number;
}

/** The same of two models over one text. */
export interface Comparison {
  before: Prediction;
  after: Prediction;
  /** Sum of KL(before || after) of the next token, in nats. */
  kl: number;
  /** Tokens for which both find the same next token likeliest. */
  agreed: number;
}

/** Logits of so many tokens are held at once. */
const ROWS = 64;

export class OutputHead {
  private readonly norm: RmsNorm;
  private readonly head: Linear;
  private readonly nll = new Float32Array(ROWS);
  private readonly kl = new Float32Array(ROWS);

  /** @throws GqaError INVALID_FILE, OUT_OF_MEMORY */
  constructor(
    private readonly config: ModelConfig,
    weights: WeightSource,
  ) {
    const { hiddenSize, vocabSize, rmsNormEps, tiedEmbeddings } = config;
    const name = tiedEmbeddings ? 'model.embed_tokens.weight' : 'lm_head.weight';
    this.norm = new RmsNorm(weights.load('model.norm.weight', [hiddenSize]), rmsNormEps);
    this.head = new Linear(weights.loadMatrix(name, [vocabSize, hiddenSize]));
  }

  /** Logits [x.length / hiddenSize, vocabSize] of states after the last layer, into out. */
  logits(x: Float32Array, out: Float32Array): void {
    getBackend().fusedLinear({
      x,
      tokens: x.length / this.config.hiddenSize,
      norm: this.norm.prologue,
      parts: [this.head.part(out)],
      combine: 'write',
      precision: 'exact',
    });
  }

  /** `onWindow` is told after each window. */
  predict(states: HiddenStates, onWindow?: (done: number) => void): Prediction {
    const logits = new Float32Array(ROWS * this.config.vocabSize);
    const result = { tokens: 0, nll: 0 };
    this.scored(states, onWindow, ({ window, from, targets }) => {
      const rows = targets.length;
      this.logits(this.rowsOf(states, window, from, rows), logits);
      result.nll += this.judge(logits, targets, null);
      result.tokens += rows;
    });
    return result;
  }

  /** Both have the windows of one text. */
  compare(
    before: HiddenStates,
    after: HiddenStates,
    onWindow?: (done: number) => void,
  ): Comparison {
    const { vocabSize } = this.config;
    const [first, second] = [0, 1].map(() => new Float32Array(ROWS * vocabSize));
    const result = {
      before: { tokens: 0, nll: 0 },
      after: { tokens: 0, nll: 0 },
      kl: 0,
      agreed: 0,
    };
    this.scored(before, onWindow, ({ window, from, targets }) => {
      const rows = targets.length;
      this.logits(this.rowsOf(before, window, from, rows), first);
      this.logits(this.rowsOf(after, window, from, rows), second);
      for (let i = 0; i < rows; i++) {
        if (likeliest(first, i, vocabSize) === likeliest(second, i, vocabSize)) result.agreed++;
      }
      result.after.nll += this.judge(second, targets, first);
      for (let i = 0; i < rows; i++) result.kl += this.kl[i];
      result.before.nll += this.judge(first, targets, null);
      result.before.tokens += rows;
      result.after.tokens += rows;
    });
    return result;
  }

  /** Runs of at most ROWS tokens that have a successor in their window, with the successors' ids. */
  private scored(
    states: HiddenStates,
    onWindow: ((done: number) => void) | undefined,
    run: (part: { window: number; from: number; targets: Int32Array }) => void,
  ): void {
    states.ids.forEach((ids, window) => {
      for (let from = 0; from < ids.length - 1; from += ROWS) {
        run({ window, from, targets: ids.subarray(from + 1, from + 1 + ROWS) });
      }
      onWindow?.(window + 1);
    });
  }

  private rowsOf(states: HiddenStates, window: number, from: number, rows: number): Float32Array {
    const { hiddenSize } = this.config;
    return states.window(window).subarray(from * hiddenSize, (from + rows) * hiddenSize);
  }

  /** Sum of -ln p(target); kl is set where there is a teacher. The logits are used up. */
  private judge(logits: Float32Array, targets: Int32Array, teacher: Float32Array | null): number {
    const { nll } = this;
    const kl = teacher === null ? null : this.kl;
    const { vocabSize: vocab } = this.config;
    const rows = targets.length;
    const training = getBackend();
    training.crossEntropy({
      ...{ logits, teacher, targets, nll, kl, rows, vocab },
      teacherShare: 0,
      weight: 1,
    });
    let sum = 0;
    for (let i = 0; i < rows; i++) sum += nll[i];
    return sum;
  }

  dispose(): void {
    this.head.dispose();
  }
}

function likeliest(logits: Float32Array, row: number, vocab: number): number {
  let best = row * vocab;
  for (let c = best + 1; c < (row + 1) * vocab; c++) if (logits[c] > logits[best]) best = c;
  return best - row * vocab;
}
