/**
 * The end of a model in training: final norm, logits, and the loss of rows of hidden states. Logits are the largest thing
 * there is, [rows, vocabSize]: they are made, judged and turned into gradients for a chunk of rows at a time.
 */
import type { ModelConfig } from '../../model/types';
import type { Parameter, Parameters } from './parameters';
import { linearBackward, TrainedLinear, type Products } from './products';

/** Of one array of logits. */
const LOGITS_BYTES = 2 ** 26;
const MIN_ROWS = 32;

export interface LossOptions {
  /** The id after each token, or -1 where it is not judged. */
  targets: Int32Array;
  /** Of each judged row in the gradient. */
  weight: number;
  /** Null without a teacher. */
  teacher: Teacher | null;
}

/** Whose distribution is learnt too: its head, and its hidden states of the same tokens. */
export interface Teacher {
  head: OutputHead;
  hidden: Float32Array;
  /** Of the divergence from the teacher in the loss, 0 .. 1. */
  share: number;
}

/** Over the judged rows, in nats. */
export interface LossSums {
  nll: number;
  /** KL(teacher || model); 0 without a teacher. */
  kl: number;
  rows: number;
}

/** Memory of a chunk. */
interface Chunk {
  normed: Float32Array;
  gradNormed: Float32Array;
  logits: Float32Array;
  nll: Float32Array;
  kl: Float32Array;
}

export class OutputHead {
  private readonly norm: Parameter;
  private readonly linear: TrainedLinear;
  private readonly rows: number;
  private readonly chunk: Chunk;

  constructor(
    private readonly products: Products,
    private readonly config: ModelConfig,
    parameters: Parameters,
    tokens: number,
  ) {
    const { tiedEmbeddings, hiddenSize, vocabSize } = config;
    const table = tiedEmbeddings ? 'model.embed_tokens.weight' : 'lm_head.weight';
    this.norm = parameters.get('model.norm.weight')!;
    this.linear = new TrainedLinear(products, parameters.get(table)!, null);
    this.rows = Math.min(tokens, Math.max(MIN_ROWS, Math.floor(LOGITS_BYTES / 4 / vocabSize)));
    const floats = (perRow: number): Float32Array => new Float32Array(this.rows * perRow);
    this.chunk = {
      normed: floats(hiddenSize),
      gradNormed: floats(hiddenSize),
      logits: floats(vocabSize),
      nll: floats(1),
      kl: floats(1),
    };
  }

  /**
   * @param hidden [tokens, hiddenSize]
   * @param gradHidden added to, and the gradients of head and norm with it; null for the losses alone
   */
  losses(
    hidden: Float32Array,
    tokens: number,
    options: LossOptions,
    gradHidden: Float32Array | null,
  ): LossSums {
    const sums = { nll: 0, kl: 0, rows: 0 };
    const { hiddenSize: dim } = this.config;
    for (let first = 0; first < tokens; first += this.rows) {
      const rows = Math.min(this.rows, tokens - first);
      const x = hidden.subarray(first * dim, (first + rows) * dim);
      this.judge(x, first, rows, options, sums);
      if (gradHidden === null) continue;
      this.backward(x, gradHidden.subarray(first * dim, (first + rows) * dim), rows);
    }
    return sums;
  }

  /** The chunk's logits of x [rows, hiddenSize]; kept until the next call. */
  logits(x: Float32Array, rows: number): Float32Array {
    const { normed, logits } = this.chunk;
    const { hiddenSize: dim, rmsNormEps: eps } = this.config;
    this.products.backend.rmsNorm({ x, weight: this.norm.weight, out: normed, tokens: rows, dim, eps }); // prettier-ignore
    this.products.multiply(normed, rows, this.linear.part(logits));
    return logits;
  }

  /** Adds the losses of rows from `first` on; the chunk's logits are their gradients then. */
  private judge(
    x: Float32Array,
    first: number,
    rows: number,
    { targets, weight, teacher }: LossOptions,
    sums: LossSums,
  ): void {
    const { nll, kl } = this.chunk;
    const { hiddenSize, vocabSize: vocab } = this.config;
    const logits = this.logits(x, rows);
    const judged = targets.subarray(first, first + rows);
    const taught = teacher?.hidden.subarray(first * hiddenSize, (first + rows) * hiddenSize);
    this.products.backend.crossEntropy({
      logits,
      teacher: teacher === null ? null : teacher.head.logits(taught!, rows),
      targets: judged,
      nll,
      kl: teacher === null ? null : kl,
      rows,
      vocab,
      teacherShare: teacher?.share ?? 0,
      weight,
    });
    for (let i = 0; i < rows; i++) {
      if (judged[i] < 0) continue;
      sums.nll += nll[i];
      if (teacher !== null) sums.kl += kl[i];
      sums.rows++;
    }
  }

  private backward(x: Float32Array, gradX: Float32Array, rows: number): void {
    const { normed, gradNormed, logits } = this.chunk;
    const { hiddenSize: dim, rmsNormEps: eps } = this.config;
    linearBackward(this.products, [{ layer: this.linear, gradOut: logits }], normed, gradNormed, rows); // prettier-ignore
    const { weight, training } = this.norm;
    this.products.backend.rmsNormBackward({
      x,
      weight,
      gradOut: gradNormed,
      gradX,
      gradWeight: training?.gradient ?? null,
      tokens: rows,
      dim,
      eps,
    });
  }

  refresh(): void {
    this.linear.refresh();
  }

  dispose(): void {
    this.linear.dispose();
  }
}
