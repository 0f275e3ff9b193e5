/**
 * Chooses the tokens of one request. Its random numbers are its own and one is drawn a token, so that the same seed
 * gives the same text whatever runs beside it. Logits become, in this order:
 *   logit + bias - frequencyPenalty * count - presencePenalty * (count > 0), counts of the answer alone,
 * and then what Sampler makes of them.
 */
import { Sampler, SamplerScratch } from '../model/sampler';
import type { RequestSampling } from './types';

/** What all requests of a thread have in common while one of them chooses. */
export class SharedScratch {
  readonly sampler: SamplerScratch;
  /** Logits after bias and penalties. */
  readonly adjusted: Float32Array;

  constructor(vocabSize: number) {
    this.sampler = new SamplerScratch(vocabSize, { temperature: 1, repetitionPenalty: 2 });
    this.adjusted = new Float32Array(vocabSize);
  }
}

export class RequestSampler {
  private readonly sampler: Sampler;
  /** How often each token stands in the answer. */
  private readonly counts = new Map<number, number>();
  private readonly bias: readonly [id: number, bias: number][];

  constructor(
    vocabSize: number,
    private readonly sampling: RequestSampling,
    prompt: readonly number[],
    private readonly scratch: SharedScratch,
  ) {
    this.sampler = new Sampler(vocabSize, sampling, scratch.sampler);
    this.bias = Object.entries(sampling.logitBias ?? {}).map(([id, bias]) => [Number(id), bias]);
    for (const id of prompt) this.sampler.see(id);
  }

  /** @param logits f32 [vocab] @throws GqaError NON_FINITE where no logit is a number above -Infinity */
  choose(logits: Float32Array): number {
    return this.sampler.choose(this.adjust(logits));
  }

  /** The answer grew by this token. */
  see(id: number): void {
    this.counts.set(id, (this.counts.get(id) ?? 0) + 1);
    this.sampler.see(id);
  }

  private adjust(logits: Float32Array): Float32Array {
    const { frequencyPenalty, presencePenalty } = this.sampling;
    const penalises = frequencyPenalty !== 0 || presencePenalty !== 0;
    if (!penalises && this.bias.length === 0) return logits;
    const { adjusted } = this.scratch;
    adjusted.set(logits);
    for (const [id, bias] of this.bias) adjusted[id] += bias;
    if (!penalises) return adjusted;
    for (const [id, count] of this.counts) {
      adjusted[id] -= frequencyPenalty * count + presencePenalty;
    }
    return adjusted;
  }
}
