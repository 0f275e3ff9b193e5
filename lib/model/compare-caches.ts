/**
 * How well a model predicts a text over each of several KV caches, and how far its predictions are from those over the
 * first. All caches advance together, a few tokens at a time, so that only as many tokens' logits are held at once.
 */
import { performance } from 'node:perf_hooks';
import type { KvCache, KvSequence } from '../kv-cache/kv-cache';
import { cacheCapacity, type KvCacheSettings } from './cache-settings';
import { logSumExp } from './log-sum-exp';
import type { Cancelled, Score } from './runner';
import type { LanguageModel } from './types';

export interface CacheScore extends Score {
  /**
   * Mean Kullback-Leibler divergence, in nats, of the distribution of the next token over the first cache from that over
   * this one: sum p ln(p / q). 0 for the first.
   */
  divergence: number;
  /** Of the forward passes over this cache. */
  tokensPerSecond: number;
  /** What a token takes, all layers. */
  bytesPerToken: number;
  /** Which of its keys and values are stored rotated. */
  rotate: { k: boolean; v: boolean };
}

interface Contender {
  cache: KvCache;
  sequence: KvSequence;
  nll: number;
  divergence: number;
  milliseconds: number;
}

/** The first contender's predictions of a chunk: what the others are held against. */
interface Reference {
  logits: Float32Array;
  /** exp(logit - logSumExp), row by row. */
  probabilities: Float64Array;
  logSums: Float64Array;
}

/** Null where cancelled. `ids` has two tokens at least, `step` is how many go through the model at once. */
export function compareCaches(
  model: LanguageModel,
  ids: readonly number[],
  settings: readonly KvCacheSettings[],
  { contextLength, step }: { contextLength: number; step: number },
  cancelled: Cancelled,
): CacheScore[] | null {
  const tokens = ids.length - 1;
  const contenders: Contender[] = [];
  try {
    for (const setting of settings) {
      const capacity = cacheCapacity(setting, tokens, contextLength);
      const cache = model.createCache({ ...setting, capacity });
      const sums = { nll: 0, divergence: 0, milliseconds: 0 };
      contenders.push({ cache, sequence: cache.sequence(), ...sums });
    }
    if (!readText(model, ids, contenders, step, cancelled)) return null;
    return contenders.map((contender) => scoreOf(contender, tokens));
  } finally {
    for (const { cache } of contenders) cache.dispose();
  }
}

function readText(
  model: LanguageModel,
  ids: readonly number[],
  contenders: readonly Contender[],
  step: number,
  cancelled: Cancelled,
): boolean {
  const tokens = ids.length - 1;
  const { vocabSize } = model.config;
  const rows = Math.min(step, tokens);
  const reference: Reference = {
    logits: new Float32Array(rows * vocabSize),
    probabilities: new Float64Array(rows * vocabSize),
    logSums: new Float64Array(rows),
  };
  const own = new Float32Array(contenders.length > 1 ? rows * vocabSize : 0);
  for (let from = 0; from < tokens; from += step) {
    const to = Math.min(from + step, tokens);
    const following = ids.slice(from + 1, to + 1);
    for (const [index, contender] of contenders.entries()) {
      if (cancelled()) return false;
      const first = index === 0;
      const out = (first ? reference.logits : own).subarray(0, (to - from) * vocabSize);
      const start = performance.now();
      model.forward(ids.slice(from, to), contender.sequence, 'all', out);
      contender.milliseconds += performance.now() - start;
      if (first) keepReference(reference, contender, following, vocabSize);
      else addDifferences(reference, contender, out, following, vocabSize);
    }
  }
  return true;
}

function keepReference(
  { logits, probabilities, logSums }: Reference,
  contender: Contender,
  following: readonly number[],
  vocabSize: number,
): void {
  for (let row = 0; row < following.length; row++) {
    const from = row * vocabSize;
    const logSum = logSumExp(logits.subarray(from, from + vocabSize));
    logSums[row] = logSum;
    for (let i = from; i < from + vocabSize; i++) probabilities[i] = Math.exp(logits[i] - logSum);
    contender.nll += logSum - logits[from + following[row]];
  }
}

/** sum p ln(p / q) = sum p (a - b) + (B - A), of logits a and b and their log sums A and B. */
function addDifferences(
  reference: Reference,
  contender: Contender,
  logits: Float32Array,
  following: readonly number[],
  vocabSize: number,
): void {
  const { logits: expected, probabilities, logSums } = reference;
  for (let row = 0; row < following.length; row++) {
    const from = row * vocabSize;
    const logSum = logSumExp(logits.subarray(from, from + vocabSize));
    let mean = 0;
    for (let i = from; i < from + vocabSize; i++)
      mean += probabilities[i] * (expected[i] - logits[i]);
    contender.divergence += mean + (logSum - logSums[row]);
    contender.nll += logSum - logits[from + following[row]];
  }
}

function scoreOf({ cache, nll, divergence, milliseconds }: Contender, tokens: number): CacheScore {
  const meanNll = nll / tokens;
  return {
    meanNll,
    perplexity: Math.exp(meanNll),
    tokens,
    divergence: divergence / tokens,
    tokensPerSecond: tokens / (milliseconds / 1000),
    bytesPerToken: cache.bytesPerToken,
    rotate: { k: cache.rotateKeys, v: cache.rotateValues },
  };
}
