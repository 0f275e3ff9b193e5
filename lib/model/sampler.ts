/**
 * Chooses the next token from logits f32 [vocab]. In this order, each step on what the one before left:
 *   repetition penalty, temperature, top-k, top-p, min-p, one draw.
 * Scratch is allocated once. Equal logits: the lower id counts as the more likely. NaN and -Infinity are never chosen.
 */
import { GqaError } from '../core/errors';
import { SeededRandom } from '../core/random';

/** Every field set; see resolveSampling for their ranges. */
export interface Sampling {
  /** 0: always the most likely token. */
  temperature: number;
  /** Only the k most likely; 0 for all. */
  topK: number;
  /** The fewest most likely tokens that hold this much of the probability, at least one; 1 for all. */
  topP: number;
  /** Only tokens at least this fraction as likely as the most likely one; 0 for all. */
  minP: number;
  /** Logits of tokens already in the text are divided by it where positive, multiplied where negative; 1 for none. */
  repetitionPenalty: number;
  seed: number;
}

/** What choosing a token needs beside the sampler's own state: samplers that are used in turn may have one in common. */
export class SamplerScratch {
  /** Logits after the penalty. */
  readonly scores: Float32Array;
  /** Relative probabilities: 1 for the most likely token. */
  readonly weights: Float64Array;
  /** Ids, a heap with the most likely on top; taken ids stand behind it, the first taken last. */
  readonly heap: Int32Array;

  constructor(vocabSize: number, options: Pick<Sampling, 'temperature' | 'repetitionPenalty'>) {
    const filters = options.temperature > 0;
    this.scores = new Float32Array(options.repetitionPenalty === 1 ? 0 : vocabSize);
    this.weights = new Float64Array(filters ? vocabSize : 0);
    this.heap = new Int32Array(filters ? vocabSize : 0);
  }
}

export class Sampler {
  private readonly random: SeededRandom;
  private readonly scores: Float32Array;
  private readonly weights: Float64Array;
  private readonly heap: Int32Array;
  private readonly inText: Uint8Array;
  private readonly textIds: number[] = [];

  constructor(
    private readonly vocabSize: number,
    private readonly options: Sampling,
    scratch = new SamplerScratch(vocabSize, options),
  ) {
    this.random = new SeededRandom(options.seed);
    ({ scores: this.scores, weights: this.weights, heap: this.heap } = scratch);
    this.inText = new Uint8Array(options.repetitionPenalty === 1 ? 0 : vocabSize);
  }

  /** The text grew by this token, of the prompt or chosen: the repetition penalty counts it from now on. */
  see(id: number): void {
    if (this.options.repetitionPenalty === 1 || this.inText[id] === 1) return;
    this.inText[id] = 1;
    this.textIds.push(id);
  }

  /** @throws GqaError NON_FINITE where no logit is a number above -Infinity */
  choose(logits: Float32Array): number {
    const scores = this.penalised(logits);
    const best = argmax(scores);
    if (best < 0) {
      throw new GqaError('NON_FINITE', 'No logit is finite: the model file may be damaged', {
        argument: 'logits',
        expected: 'a finite number',
        received: String(scores[0]),
      });
    }
    const { temperature, topK, topP, minP } = this.options;
    if (temperature === 0) return best;
    const total = this.fillWeights(scores, scores[best], temperature);
    if (topK === 0 && topP >= 1 && minP === 0) return this.drawFromAll(total);
    return this.drawFromTop(total);
  }

  private penalised(logits: Float32Array): Float32Array {
    const penalty = this.options.repetitionPenalty;
    if (penalty === 1) return logits;
    this.scores.set(logits);
    for (const id of this.textIds) {
      this.scores[id] = logits[id] > 0 ? logits[id] / penalty : logits[id] * penalty;
    }
    return this.scores;
  }

  /** weight = exp((score - max) / temperature), 0 for NaN; returns their sum. */
  private fillWeights(scores: Float32Array, max: number, temperature: number): number {
    let total = 0;
    for (let id = 0; id < this.vocabSize; id++) {
      // Infinity - Infinity is NaN, but equally likely.
      const weight = scores[id] === max ? 1 : Math.exp((scores[id] - max) / temperature);
      this.weights[id] = weight > 0 ? weight : 0;
      total += this.weights[id];
    }
    return total;
  }

  private drawFromAll(total: number): number {
    let left = this.random.uniform() * total;
    let last = 0;
    for (let id = 0; id < this.vocabSize; id++) {
      if (this.weights[id] === 0) continue;
      last = id;
      left -= this.weights[id];
      if (left < 0) break;
    }
    return last;
  }

  /** Takes the most likely tokens one by one while the filters let them, then draws among those. */
  private drawFromTop(total: number): number {
    const { topK, topP, minP } = this.options;
    const { weights, heap } = this;
    const size = this.buildHeap();
    const most = topK === 0 ? size : Math.min(topK, size);
    // Top-p measures against what top-k leaves.
    const whole = topK === 0 ? total : this.sumOfTop(most, size);
    const enough = topP >= 1 ? Infinity : topP * whole;
    let taken = 0;
    let mass = 0;
    // The first always stays: its weight is 1.
    do {
      const id = topK === 0 ? this.take(size - taken) : heap[size - 1 - taken];
      if (weights[id] < minP) break;
      mass += weights[id];
      taken++;
    } while (taken < most && mass < enough);
    return this.drawFromTaken(taken, size, mass);
  }

  /** The i-th most likely token stands at heap[size - 1 - i]. */
  private drawFromTaken(taken: number, size: number, mass: number): number {
    const { weights, heap } = this;
    let left = this.random.uniform() * mass;
    for (let i = 0; i < taken - 1; i++) {
      left -= weights[heap[size - 1 - i]];
      if (left < 0) return heap[size - 1 - i];
    }
    return heap[size - taken];
  }

  /** Takes the `most` likely and returns the sum of their weights. */
  private sumOfTop(most: number, size: number): number {
    let sum = 0;
    for (let i = 0; i < most; i++) sum += this.weights[this.take(size - i)];
    return sum;
  }

  /** A heap of all tokens that can be chosen; returns their number. */
  private buildHeap(): number {
    let size = 0;
    for (let id = 0; id < this.vocabSize; id++) {
      if (this.weights[id] > 0) this.heap[size++] = id;
    }
    for (let i = (size >> 1) - 1; i >= 0; i--) this.siftDown(i, size);
    return size;
  }

  /** Moves the top of a heap of `size` ids behind it and returns that id. */
  private take(size: number): number {
    const { heap } = this;
    const top = heap[0];
    heap[0] = heap[size - 1];
    heap[size - 1] = top;
    this.siftDown(0, size - 1);
    return top;
  }

  private siftDown(from: number, size: number): void {
    const { heap } = this;
    const id = heap[from];
    let at = from;
    for (let child = 2 * at + 1; child < size; child = 2 * at + 1) {
      if (child + 1 < size && this.before(heap[child + 1], heap[child])) child++;
      if (!this.before(heap[child], id)) break;
      heap[at] = heap[child];
      at = child;
    }
    heap[at] = id;
  }

  private before(a: number, b: number): boolean {
    const difference = this.weights[a] - this.weights[b];
    return difference > 0 || (difference === 0 && a < b);
  }
}

/** The lowest index of the largest element; -1 where all are NaN or -Infinity. */
export function argmax(values: Float32Array): number {
  let best = -1;
  let max = -Infinity;
  for (let i = 0; i < values.length; i++) {
    if (values[i] > max) {
      max = values[i];
      best = i;
    }
  }
  return best;
}
