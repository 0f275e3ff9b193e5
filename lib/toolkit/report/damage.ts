/** What a conversion did to a model, in figures. */
import { DTYPE_BYTES } from '../../core/dtype';
import type { ModelConfig } from '../../model/types';
import type { Method } from '../convert/methods';
import type { Comparison } from '../output-head';

export interface Change {
  before: number;
  after: number;
}

export interface LayerDamage {
  layer: number;
  kvHeads: Change;
  /** Which of the original's KV heads share each new one. */
  groups: number[][];
  /**
   * Relative error of the attention output for the original's inputs, after the output projection:
   * sqrt(sum |o - o'|^2 / sum |o|^2). Null without a text.
   */
  outputError: number | null;
  /** Relative errors of the weights' products, all inputs alike: see convert/weight-errors.ts. */
  keyError: number;
  valueError: number;
}

export interface TextUse {
  path: string;
  tokens: number;
  windows: number;
  /** Tokens of a window. */
  window: number;
  documents: number;
  /** Tokens left out beyond maxTokens. */
  cut: number;
}

export interface DamageReport {
  source: string;
  output: string;
  method: Method;
  regroup: boolean;
  seed: number;
  heads: number;
  headDim: number;
  /** Of the model, over `text`, in nats a token; null without a text, as are the next four. */
  crossEntropy: Change | null;
  perplexity: Change | null;
  /** Mean KL(before || after) of the next token, in nats. */
  kl: number | null;
  /** Share of tokens for which both models find the same next token likeliest. */
  topAgreement: number | null;
  /** Tokens that were predicted. */
  scoredTokens: number | null;
  /** Of the KV cache in f16, all layers. */
  bytesPerToken: Change;
  text: TextUse | null;
  /** What the method was calibrated with. */
  calibration: TextUse | null;
  layers: LayerDamage[];
}

/** KV bytes of a token in f16: keys and values of every layer. */
export function cacheBytesPerToken(layerKvHeads: readonly number[], headDim: number): number {
  return layerKvHeads.reduce((sum, heads) => sum + 2 * heads * headDim * DTYPE_BYTES.f16, 0);
}

/** The part of a report that comes from comparing both models over the text. */
export function modelDamage(
  comparison: Comparison | null,
): Pick<DamageReport, 'crossEntropy' | 'perplexity' | 'kl' | 'topAgreement' | 'scoredTokens'> {
  if (comparison === null) {
    return {
      ...{ crossEntropy: null, perplexity: null, kl: null },
      ...{ topAgreement: null, scoredTokens: null },
    };
  }
  const { before, after, kl, agreed } = comparison;
  const { tokens } = before;
  const crossEntropy = { before: before.nll / tokens, after: after.nll / tokens };
  return {
    crossEntropy,
    perplexity: { before: Math.exp(crossEntropy.before), after: Math.exp(crossEntropy.after) },
    kl: kl / tokens,
    topAgreement: agreed / tokens,
    scoredTokens: tokens,
  };
}

export function bytesChange(config: ModelConfig, layerKvHeads: readonly number[]): Change {
  const { headDim } = config;
  return {
    before: cacheBytesPerToken(config.layerKvHeads, headDim),
    after: cacheBytesPerToken(layerKvHeads, headDim),
  };
}
