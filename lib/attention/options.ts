/** The features of attention. B, Tq, Hq, D are q's dimensions, Tk the number of keys, Dv the size of a value. */
import type { AttentionStats } from '../core/attention-stats';
import type { FloatDType } from '../core/dtype';
import type { Precision } from '../core/precision';
import type { Tensor } from '../core/tensor';
import { requireBoolean, requireOptions } from '../core/validate';

export interface AttentionFeatures<R extends FloatDType = FloatDType> {
  /** Query i sees keys up to i + Tk - Tq. Default false; true over a cache. */
  causal?: boolean;
  /** Keys a query sees, itself included. Default Infinity; over a cache its own, which it may only narrow. */
  window?: number;
  /** First keys, visible whatever the window. Default 0; over a windowed cache its own, which it may only narrow. */
  sinkTokens?: number;
  /** [B|1, Hq|1, Tq, Tk]: 0 hides. */
  mask?: Tensor<'u8'>;
  /** [B|1, Hq|1, Tq, Tk], added after scale and softcap. */
  bias?: Tensor<'f32'>;
  /** [Hq]: adds slope * (key position - query position). */
  alibiSlopes?: Tensor<'f32'>;
  /** [Hq]: logits that join the softmax denominator, and so the LSE, only. */
  sinkLogits?: Tensor<'f32'>;
  /** Default 1 / sqrt(D). */
  scale?: number;
  /** A score s becomes softcap * tanh(s / softcap). Default 0: none. */
  softcap?: number;
  /** Takes the result: [B, Tq, Hq, Dv], f32 or q's dtype, in memory apart from every input. */
  out?: Tensor<R>;
  /** Training: each weight is zeroed with this probability, the others scaled by 1 / (1 - probability). */
  dropout?: { probability: number; seed: number };
  /**
   * 'exact', the default, keeps f32 accuracy for f32 and f16 queries. 'fast' may round such queries and the softmax
   * weights to bf16 over bf16 keys and values, as is done for bf16 queries: errors up to those of a bf16 output. Over
   * others it may multiply each number as the sum of two bf16: errors up to 2e-5.
   */
  precision?: Precision;
  /** Takes what the softmax weights of each row look like: see AttentionStats. The result is the same to the last bit. */
  stats?: AttentionStats;
}

/** Options of a call whose result is the output tensor. */
export interface AttentionOptions<R extends FloatDType = FloatDType> extends AttentionFeatures<R> {
  returnLse?: false;
}

/** Options of a call whose result is { out, lse }. */
export interface AttentionLseOptions<
  R extends FloatDType = FloatDType,
> extends AttentionFeatures<R> {
  returnLse: true;
}

/** An output and what merging it with others needs. */
export interface AttentionWithLse<R extends FloatDType = FloatDType> {
  /** [B, Tq, Hq, Dv] */
  out: Tensor<R>;
  /** [B, Tq, Hq]: natural log-sum-exp of the scaled, masked scores; -Infinity where no key is visible. */
  lse: Tensor<'f32'>;
}

/** The options of one call, each read once and before any check: an options object may have getters. */
export class OptionValues {
  causal: unknown;
  window: unknown;
  sinkTokens: unknown;
  mask: unknown;
  bias: unknown;
  alibiSlopes: unknown;
  sinkLogits: unknown;
  scale: unknown;
  softcap: unknown;
  out: unknown;
  probability: unknown;
  seed: unknown;
  precision: unknown;
  stats: unknown;
  returnLse = false;

  read(given: unknown): void {
    if (given === undefined) return this.clear();
    requireOptions(given, 'options');
    const { causal, window, sinkTokens, mask, bias, alibiSlopes, sinkLogits } =
      given as AttentionFeatures;
    const { scale, softcap, out, dropout, precision, stats } = given as AttentionFeatures;
    const { returnLse = false } = given as { returnLse?: boolean };
    let probability: unknown;
    let seed: unknown;
    if (dropout !== undefined) {
      requireOptions(dropout, 'options.dropout');
      // null rather than undefined: what is missing here is an error, not an absent option.
      ({ probability = null, seed = null } = dropout);
    }
    this.returnLse = requireBoolean(returnLse, 'options.returnLse');
    this.causal = causal;
    this.window = window;
    this.sinkTokens = sinkTokens;
    this.mask = mask;
    this.bias = bias;
    this.alibiSlopes = alibiSlopes;
    this.sinkLogits = sinkLogits;
    this.scale = scale;
    this.softcap = softcap;
    this.out = out;
    this.probability = probability;
    this.seed = seed;
    this.precision = precision;
    this.stats = stats;
  }

  clear(): void {
    this.causal = undefined;
    this.window = undefined;
    this.sinkTokens = undefined;
    this.mask = undefined;
    this.bias = undefined;
    this.alibiSlopes = undefined;
    this.sinkLogits = undefined;
    this.scale = undefined;
    this.softcap = undefined;
    this.out = undefined;
    this.probability = undefined;
    this.seed = undefined;
    this.precision = undefined;
    this.stats = undefined;
    this.returnLse = false;
  }
}
