/**
 * Token embeddings: rows of a table [vocabSize, dim], widened to f32 when looked up. The table is packed as the weights of
 * a linear layer are, so that an output head may be the same memory.
 */
import { expectedError } from '../core/errors';
import { checkMatrix, checkRoom } from './inputs';
import type { MatrixWeights, Weights } from './inputs';
import { Linear } from './linear';
import { hasPacker } from './packing';

export class Embedding {
  readonly vocabSize: number;
  readonly dim: number;
  private readonly table: Linear;
  /** Whether the table is not a layer of somebody else's. */
  private readonly owned: boolean;
  private ids = new Int32Array(1);

  /**
   * Copies table [vocabSize, dim] (f32, f16, bf16; q8_0, q4_0, q4_1), or shares the weights of a linear layer.
   * @throws GqaError INVALID_ARGUMENT, INVALID_DTYPE, INVALID_RANK, INVALID_SHAPE or OUT_OF_MEMORY
   */
  constructor(table: Weights);
  constructor(table: MatrixWeights | Linear);
  constructor(table: MatrixWeights | Linear) {
    this.owned = !(table instanceof Linear);
    if (table instanceof Linear) {
      this.table = table;
    } else {
      if (!hasPacker(table)) checkMatrix('table', table);
      this.table = new Linear(table);
    }
    this.vocabSize = this.table.outFeatures;
    this.dim = this.table.inFeatures;
  }

  /** Of a table of its own. */
  get bytes(): number {
    return this.owned ? this.table.bytes : 0;
  }

  /**
   * Writes the rows of ids[from .. from + count) to out [count, dim].
   * @throws GqaError OUT_OF_RANGE where an id is not in the vocabulary, BUFFER_TOO_SMALL, DISPOSED; nothing is written then
   */
  apply(ids: ArrayLike<number>, out: Float32Array, from = 0, count = ids.length - from): void {
    checkRoom('out', out.length, count * this.dim);
    checkTokenIds(ids, this.vocabSize, from, count);
    if (this.ids.length < count) this.ids = new Int32Array(count);
    for (let t = 0; t < count; t++) this.ids[t] = ids[from + t];
    this.table.gather(this.ids, out, count);
  }

  /** Frees a table of its own. */
  dispose(): void {
    if (this.owned) this.table.dispose();
  }
}

/** @throws GqaError OUT_OF_RANGE unless ids[from .. from + count) are integers in [0, vocabSize). */
export function checkTokenIds(
  ids: ArrayLike<number>,
  vocabSize: number,
  from = 0,
  count = ids.length - from,
): void {
  for (let i = from; i < from + count; i++) {
    const id = ids[i];
    if (!Number.isInteger(id) || id < 0 || id >= vocabSize) {
      throw expectedError(
        'OUT_OF_RANGE',
        `ids[${i}]`,
        `an integer in 0 .. ${vocabSize - 1}`,
        String(id),
      );
    }
  }
}
