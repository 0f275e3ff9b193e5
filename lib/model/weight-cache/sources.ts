/** Checkpoints whose matrices go to a file of packed weights, or come from one. */
import { getBackend } from '../../backend';
import type { PackedWeights } from '../../backend/contract';
import type { WeightDType } from '../../core/dtype';
import { GqaError } from '../../core/errors';
import { packMatrix, providePacked } from '../../nn/packing';
import type { MatrixTensor, WeightSource, WeightTensor } from '../types';
import type { PackedFileReader, PackedFileWriter } from './packed-file';

/** Every matrix that a layer packs is written too. A failure to write ends the writing, not the loading. */
export class PackingSource implements WeightSource {
  /** Why writing ended. */
  failure: GqaError | null = null;

  constructor(
    private readonly inner: WeightSource,
    private readonly writer: PackedFileWriter,
  ) {}

  has(name: string): boolean {
    return this.inner.has(name);
  }

  load(name: string, shape: readonly number[]): WeightTensor {
    return this.inner.load(name, shape);
  }

  loadMatrix(name: string, shape: readonly number[]): MatrixTensor {
    return this.written(name, this.inner.loadMatrix(name, shape));
  }

  derive(name: string, _shape: readonly number[], make: () => MatrixTensor): MatrixTensor {
    return this.written(name, make());
  }

  close(): void {
    this.inner.close();
  }

  /** A copy that is written when it is packed. */
  private written(name: string, plain: MatrixTensor): MatrixTensor {
    const matrix = { ...plain };
    providePacked(matrix, () => {
      const weights = packMatrix(getBackend(), plain);
      this.write(name, plain.dtype, weights);
      return weights;
    });
    return matrix;
  }

  private write(name: string, dtype: WeightDType, weights: PackedWeights): void {
    if (this.failure !== null) return;
    try {
      this.writer.add(name, dtype, weights);
    } catch (error) {
      if (!(error instanceof GqaError)) throw error;
      this.failure = error;
    }
  }
}

/**
 * Matrices that the file has are not read from the checkpoint, unless somebody asks for their data; others are packed as
 * without a file.
 */
export class MappedSource implements WeightSource {
  constructor(
    private readonly inner: WeightSource,
    private readonly reader: PackedFileReader,
  ) {}

  has(name: string): boolean {
    return this.inner.has(name);
  }

  load(name: string, shape: readonly number[]): WeightTensor {
    return this.inner.load(name, shape);
  }

  loadMatrix(name: string, shape: readonly number[]): MatrixTensor {
    return this.derive(name, shape, () => this.inner.loadMatrix(name, shape));
  }

  derive(name: string, shape: readonly number[], make: () => MatrixTensor): MatrixTensor {
    const found = this.reader.find(name);
    if (found?.rows !== shape[0] || found.columns !== shape[1]) return make();
    const matrix = {
      shape: [...shape],
      dtype: found.dtype,
      get data() {
        return make().data;
      },
    } as MatrixTensor;
    providePacked(matrix, () => this.reader.take(name));
    return matrix;
  }

  close(): void {
    this.inner.close();
  }
}
