/**
 * Rotary position embedding: pair r of a head at position p is turned by the angle p * f[r],
 *   f[r] = theta^(-2r / rotaryDim), rescaled for long contexts where the model says so.
 * x [tokens, heads, headDim] f32, in place. Angles, cosines and sines are float64, rounded once to f32.
 */
import { getBackend } from '../backend';
import type { Backend } from '../backend/contract';
import { expectedError } from '../core/errors';
import { requireBoolean, requireInteger } from '../core/validate';
import { checkRoom, requirePositive } from './inputs';

/**
 * Llama-3's frequency scaling, plain linear scaling of the positions, YaRN's, or a divisor of each frequency. Where there is
 * an attention factor, what is turned is multiplied by it too.
 */
export type RopeScaling =
  | {
      type: 'llama3';
      factor: number;
      lowFreqFactor: number;
      highFreqFactor: number;
      originalContext: number;
    }
  | { type: 'linear'; factor: number }
  | {
      type: 'yarn';
      factor: number;
      /** Turns within the original context above which a pair keeps its frequency, and below which it is slowed. */
      betaFast: number;
      betaSlow: number;
      originalContext: number;
      /** Whether the range of pairs between the two is rounded to whole ones. */
      truncate: boolean;
      attentionFactor: number;
    }
  | { type: 'factors'; factors: readonly number[]; attentionFactor?: number };

export interface RopeOptions {
  headDim: number;
  /** Leading elements of a head that are turned; even, at most headDim, which is the default. */
  rotaryDim?: number;
  /** Base of the frequencies; default 10,000. */
  theta?: number;
  scaling?: RopeScaling | null;
  /** Pairs are (2r, 2r + 1) instead of (r, r + rotaryDim / 2). */
  interleaved?: boolean;
}

/**
 * The rotation of one model. Share one instance between layers: the cosines and sines of the last positions are kept.
 */
export class Rope {
  readonly headDim: number;
  readonly rotaryDim: number;
  readonly interleaved: boolean;
  /** f[r], radians per position, float64 [rotaryDim / 2]. */
  readonly frequencies: Float64Array;
  /** What turned elements are multiplied by: 1 but for scalings that say otherwise. */
  readonly attentionFactor: number;

  private readonly backend: Backend = getBackend();
  private start = 0;
  private tokens = 0;
  /** The rows' positions where they are no range. */
  private positions: Float64Array | null = null;
  private cos = new Float32Array(0);
  private sin = new Float32Array(0);

  /** @throws GqaError INVALID_ARGUMENT, OUT_OF_RANGE or NON_FINITE for options that make no rotation. */
  constructor(options: RopeOptions) {
    const { headDim, rotaryDim = headDim, theta = 10_000, scaling = null } = options;
    requireInteger(headDim, 'headDim', 1);
    requireInteger(rotaryDim, 'rotaryDim', 0, headDim);
    if (rotaryDim % 2 !== 0) {
      throw expectedError('OUT_OF_RANGE', 'rotaryDim', 'an even integer', String(rotaryDim));
    }
    requirePositive(theta, 'theta');
    this.headDim = headDim;
    this.rotaryDim = rotaryDim;
    this.interleaved = requireBoolean(options.interleaved ?? false, 'interleaved');
    this.frequencies = ropeFrequencies(rotaryDim, theta, scaling);
    const { attentionFactor = 1 } = scaling !== null && 'attentionFactor' in scaling ? scaling : {};
    requirePositive(attentionFactor, 'scaling.attentionFactor');
    this.attentionFactor = attentionFactor;
  }

  /**
   * Turns x [tokens, heads, headDim] in place; its rows stand at positions start .. start + tokens - 1.
   * @throws GqaError BUFFER_TOO_SMALL where x is shorter than that.
   */
  apply(x: Float32Array, tokens: number, heads: number, start: number): void {
    checkRoom('x', x.length, tokens * heads * this.headDim);
    if (tokens === 0) return;
    this.prepare(start, tokens);
    const { headDim, rotaryDim, interleaved, cos, sin } = this;
    this.backend.rope({ x, cos, sin, tokens, heads, headDim, rotaryDim, interleaved });
  }

  /**
   * Turns x [positions.length, heads, headDim] in place, each row to its position. The array is known again by its
   * identity: whoever writes other positions into it gives another array.
   * @throws GqaError BUFFER_TOO_SMALL where x is shorter than that.
   */
  applyAt(x: Float32Array, heads: number, positions: Float64Array): void {
    const tokens = positions.length;
    checkRoom('x', x.length, tokens * heads * this.headDim);
    if (tokens === 0) return;
    if (positions !== this.positions) {
      this.fill(tokens, (row) => positions[row]);
      this.positions = positions;
    }
    const { headDim, rotaryDim, interleaved, cos, sin } = this;
    this.backend.rope({ x, cos, sin, tokens, heads, headDim, rotaryDim, interleaved });
  }

  /** Fills cos and sin for the range, unless they hold it already. */
  private prepare(start: number, tokens: number): void {
    if (this.positions === null && start === this.start && tokens <= this.tokens) return;
    this.fill(tokens, (row) => start + row);
    this.start = start;
    this.tokens = tokens;
    this.positions = null;
  }

  /** cos and sin [tokens, rotaryDim / 2], times the attention factor. */
  private fill(tokens: number, positionOf: (row: number) => number): void {
    const { attentionFactor } = this;
    const pairs = this.frequencies.length;
    if (this.cos.length < tokens * pairs) {
      this.cos = new Float32Array(tokens * pairs);
      this.sin = new Float32Array(tokens * pairs);
    }
    for (let t = 0, i = 0; t < tokens; t++) {
      const position = positionOf(t);
      for (let r = 0; r < pairs; r++, i++) {
        const angle = position * this.frequencies[r];
        this.cos[i] = attentionFactor * Math.cos(angle);
        this.sin[i] = attentionFactor * Math.sin(angle);
      }
    }
  }
}

type FrequencyRule = (frequency: number, pair: number) => number;

function ropeFrequencies(
  rotaryDim: number,
  theta: number,
  scaling: RopeScaling | null,
): Float64Array {
  const rescale = frequencyRule(scaling, rotaryDim, theta);
  return Float64Array.from({ length: rotaryDim / 2 }, (_, r) =>
    rescale(theta ** ((-2 * r) / rotaryDim), r),
  );
}

function frequencyRule(
  scaling: RopeScaling | null,
  rotaryDim: number,
  theta: number,
): FrequencyRule {
  const pairs = rotaryDim / 2;
  if (scaling === null) return (frequency) => frequency;
  switch (scaling.type) {
    case 'linear':
      requirePositive(scaling.factor, 'scaling.factor');
      return (frequency) => frequency / scaling.factor;
    case 'llama3':
      return llama3Rule(scaling);
    case 'yarn':
      return yarnRule(scaling, rotaryDim, theta);
    case 'factors':
      requireInteger(scaling.factors.length, 'scaling.factors.length', pairs, pairs);
      scaling.factors.forEach((factor, r) => requirePositive(factor, `scaling.factors[${r}]`));
      return (frequency, pair) => frequency / scaling.factors[pair];
    default:
      throw expectedError(
        'INVALID_ARGUMENT',
        'scaling.type',
        "'llama3', 'linear', 'yarn' or 'factors'",
        String((scaling as { type: unknown }).type),
      );
  }
}

/**
 * Waves that turn less than lowFreqFactor times within the original context are slowed by `factor`, those that turn
 * more than highFreqFactor times stay, and between the two the share of each is linear in the number of turns.
 */
function llama3Rule(scaling: RopeScaling & { type: 'llama3' }): FrequencyRule {
  const { factor, lowFreqFactor: low, highFreqFactor: high, originalContext } = scaling;
  requirePositive(factor, 'scaling.factor');
  requirePositive(low, 'scaling.lowFreqFactor');
  requirePositive(high, 'scaling.highFreqFactor');
  requirePositive(originalContext, 'scaling.originalContext');
  if (high <= low) {
    throw expectedError(
      'OUT_OF_RANGE',
      'scaling.highFreqFactor',
      `a number above lowFreqFactor (${low})`,
      String(high),
    );
  }
  return (frequency) => {
    const turns = (originalContext * frequency) / (2 * Math.PI);
    const kept = Math.min(1, Math.max(0, (turns - low) / (high - low)));
    return kept * frequency + ((1 - kept) * frequency) / factor;
  };
}

/**
 * Pairs that turn more than betaFast times within the original context keep their frequency, those that turn less than
 * betaSlow times are slowed by `factor`, and between the two the share of each is linear in the pair's number.
 */
function yarnRule(
  scaling: RopeScaling & { type: 'yarn' },
  rotaryDim: number,
  theta: number,
): FrequencyRule {
  const { factor, betaFast, betaSlow, originalContext, truncate } = scaling;
  requirePositive(factor, 'scaling.factor');
  requirePositive(betaFast, 'scaling.betaFast');
  requirePositive(betaSlow, 'scaling.betaSlow');
  requirePositive(originalContext, 'scaling.originalContext');
  /** The pair, as a real number, that turns so many times within the original context. */
  const pairOf = (turns: number): number =>
    (rotaryDim * Math.log(originalContext / (turns * 2 * Math.PI))) / (2 * Math.log(theta));
  const fast = pairOf(betaFast);
  const slow = pairOf(betaSlow);
  const first = Math.max(truncate ? Math.floor(fast) : fast, 0);
  const last = Math.min(truncate ? Math.ceil(slow) : slow, rotaryDim - 1);
  const width = last === first ? 0.001 : last - first;
  return (frequency, pair) => {
    const slowed = Math.min(1, Math.max(0, (pair - first) / width));
    return (1 - slowed) * frequency + (slowed * frequency) / factor;
  };
}
