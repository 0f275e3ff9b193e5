/** Token embeddings: a table [vocabSize, dim] kept in its checkpoint's dtype, rows widened to f32 when looked up. */
import { getBackend } from '../backend';
import type { Backend } from '../backend/contract';
import type { FloatData, FloatDType } from '../core/dtype';
import { expectedError } from '../core/errors';
import { checkRoom, checkWeights } from './inputs';
import type { Weights } from './inputs';

export class Embedding {
  readonly vocabSize: number;
  readonly dim: number;
  private readonly backend: Backend = getBackend();
  private readonly dtype: FloatDType;
  private readonly table: FloatData;

  /**
   * Keeps table [vocabSize, dim] (f32, f16 or bf16); copies it where it is a part of a larger buffer, which could
   * then be freed.
   * @throws GqaError INVALID_ARGUMENT, INVALID_DTYPE or INVALID_RANK
   */
  constructor(table: Weights) {
    checkWeights('table', table, [undefined, undefined]);
    [this.vocabSize, this.dim] = table.shape;
    this.dtype = table.dtype;
    const { data } = table;
    this.table = data.byteLength < data.buffer.byteLength ? data.slice() : data;
  }

  get bytes(): number {
    return this.table.byteLength;
  }

  /**
   * Writes the rows of ids[from .. from + count) to out [count, dim].
   * @throws GqaError OUT_OF_RANGE where an id is not in the vocabulary, BUFFER_TOO_SMALL; nothing is written then
   */
  apply(ids: ArrayLike<number>, out: Float32Array, from = 0, count = ids.length - from): void {
    const { dim, dtype, table } = this;
    checkRoom('out', out.length, count * dim);
    checkTokenIds(ids, this.vocabSize, from, count);
    for (let t = 0; t < count; t++) {
      const first = ids[from + t] * dim;
      this.backend.convert({
        from: table.subarray(first, first + dim),
        fromDtype: dtype,
        to: out.subarray(t * dim, (t + 1) * dim),
        toDtype: 'f32',
        count: dim,
      });
    }
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
