/** Training step by step: batches in micro-batches through the network, gradients into weights. Same bits, same seed. */
import type { Backend } from '../../backend/contract';
import { GqaError } from '../../core/errors';
import type { ModelConfig } from '../../model/types';
import type { Span } from './block';
import { Batches } from './batches';
import { microTokens } from './memory';
import { Network } from './network';
import { gradientNorm, rateAt, updateWeights } from './optimiser';
import type { LossSums } from './output-head';
import { trainedOf, type Parameters } from './parameters';
import type { Settings } from './settings';

/** Where the rate ends, as a share of its highest. */
const RATE_FLOOR = 0;
/** A loss so many times as bad as at first, and as guessing, gets no better. */
const DIVERGED = 2;

/** A model that is learnt from. */
export interface TeacherModel {
  config: ModelConfig;
  parameters: Parameters;
}

/** What came of a step, in nats a token. */
export interface StepLoss {
  /** What was minimised: (1 - teacherShare) crossEntropy + teacherShare kl. */
  loss: number;
  crossEntropy: number;
  /** From the teacher's distribution; 0 without one. */
  kl: number;
}

export class Trainer {
  /** Steps done. */
  step = 0;
  private readonly trained;
  private readonly network: Network;
  private readonly teacher: Network | null;
  private readonly batches: Batches;
  /** Windows that go through the network together. */
  private readonly microWindows: number;
  private firstLoss: number | null = null;

  /** @param windows of settings.window tokens each */
  constructor(
    private readonly backend: Backend,
    private readonly config: ModelConfig,
    parameters: Parameters,
    private readonly settings: Settings,
    private readonly windows: readonly Int32Array[],
    teacher: TeacherModel | null,
  ) {
    const { window, batch, seed } = settings;
    this.microWindows = Math.min(batch, Math.max(1, Math.floor(microTokens(config) / window)));
    const sizes = { tokens: this.microWindows * window, window };
    this.trained = trainedOf(parameters);
    this.network = new Network(backend, config, parameters, sizes);
    this.teacher = teacher && new Network(backend, teacher.config, teacher.parameters, sizes);
    this.batches = new Batches(windows.length, batch, seed);
  }

  /** Goes on where another run stopped, with the weights that it left. */
  resumeAt(step: number, firstLoss: number | null): void {
    this.step = step;
    this.firstLoss = firstLoss;
    this.network.refresh();
  }

  /**
   * The next step; null where it was cancelled, and weights are then as they were.
   * @throws GqaError NON_FINITE where the loss or a gradient is, OUT_OF_RANGE where the loss has run away; weights are
   *   then as they were
   */
  advance(cancelled: () => boolean): StepLoss | null {
    const { settings, step } = this;
    for (const { training } of this.trained) training.gradient.fill(0);
    const drawn = this.batches.of(step);
    const sums = { nll: 0, kl: 0, rows: 0 };
    for (let from = 0; from < drawn.length; from += this.microWindows) {
      if (cancelled()) return null;
      addTo(sums, this.accumulate(drawn.slice(from, from + this.microWindows)));
    }
    const losses = this.meanLosses(sums);
    const norm = gradientNorm(this.backend, this.trained);
    this.checkSound(losses.loss, norm);
    const rate = rateAt({ ...settings, rate: settings.learningRate, floor: RATE_FLOOR }, step);
    updateWeights(this.backend, this.trained, step, { rate, decay: settings.decay, norm });
    this.network.refresh();
    this.step++;
    return losses;
  }

  /** Mean cross-entropy, in nats, of tokens 2 .. n of each window, or null where cancelled. */
  evaluate(windows: readonly Int32Array[], cancelled: () => boolean): number | null {
    const sums = { nll: 0, kl: 0, rows: 0 };
    for (let from = 0, to; from < windows.length; from = to) {
      if (cancelled()) return null;
      // Windows of one length together; the last may be shorter.
      const { length } = windows[from];
      for (to = from + 1; to < windows.length && to - from < this.microWindows; to++) {
        if (windows[to].length !== length) break;
      }
      const { ids, targets, span } = together(windows.slice(from, to));
      addTo(sums, this.network.evaluate(ids, span, { targets, weight: 1, teacher: null }));
    }
    return sums.nll / sums.rows;
  }

  private accumulate(drawn: readonly number[]): LossSums {
    const { batch, window, teacherShare: share } = this.settings;
    const { ids, targets, span } = together(drawn.map((i) => this.windows[i]));
    const teacher = this.teacher && {
      head: this.teacher.head,
      hidden: this.teacher.forward(ids, span),
      share,
    };
    const weight = 1 / (batch * (window - 1));
    return this.network.accumulate(ids, span, { targets, weight, teacher });
  }

  private meanLosses({ nll, kl, rows }: LossSums): StepLoss {
    const { teacherShare: share } = this.settings;
    const crossEntropy = nll / rows;
    return {
      loss: (1 - share) * crossEntropy + (share * kl) / rows,
      crossEntropy,
      kl: kl / rows,
    };
  }

  private checkSound(loss: number, norm: number): void {
    const at = `in step ${this.step + 1}`;
    if (!Number.isFinite(loss) || !Number.isFinite(norm)) {
      throw diverged('NON_FINITE', at, 'a finite loss', `a loss of ${loss}, gradients of ${norm}`);
    }
    this.firstLoss ??= loss;
    const limit = DIVERGED * Math.max(this.firstLoss, Math.log(this.config.vocabSize));
    if (loss <= limit) return;
    throw diverged('OUT_OF_RANGE', at, `a loss below ${limit.toFixed(2)}`, loss.toFixed(2));
  }

  dispose(): void {
    this.network.dispose();
    this.teacher?.dispose();
  }
}

function diverged(
  code: 'NON_FINITE' | 'OUT_OF_RANGE',
  at: string,
  expected: string,
  received: string,
): GqaError {
  const advice = 'a smaller learning rate may help';
  return new GqaError(
    code,
    `Training diverges ${at}: expected ${expected} but found ${received}; ${advice}`,
    { argument: 'loss', expected, received },
  );
}

/** Windows of one length side by side, and the token after each; the last of a window is not judged. */
function together(windows: readonly Int32Array[]): {
  ids: Int32Array;
  targets: Int32Array;
  span: Span;
} {
  const span = { batch: windows.length, window: windows[0].length };
  const ids = new Int32Array(span.batch * span.window);
  const targets = new Int32Array(ids.length).fill(-1);
  windows.forEach((window, b) => {
    ids.set(window, b * span.window);
    targets.set(window.subarray(1), b * span.window);
  });
  return { ids, targets, span };
}

function addTo(sums: LossSums, more: LossSums): void {
  sums.nll += more.nll;
  sums.kl += more.kl;
  sums.rows += more.rows;
}
