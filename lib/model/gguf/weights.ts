/** A GGUF file as a WeightSource: tensors answer to Hugging Face's names and have Hugging Face's layouts. */
import { GqaError } from '../../core/errors';
import { invalidFile, type LoadedTensor, type StoredTensor } from '../../format/file';
import type { GgufFile } from '../../format/gguf';
import type { MatrixTensor, WeightSource, WeightTensor } from '../types';
import type { Composition, GgufArchitecture, StoredPart } from './architecture';
import type { GgufMetadata } from './metadata';
import { rowCount, takeRows, valuesOf } from './rows';

export class GgufWeights implements WeightSource {
  private readonly file: GgufFile;

  constructor(
    private readonly metadata: GgufMetadata,
    private readonly architecture: GgufArchitecture,
  ) {
    this.file = metadata.file;
  }

  has(name: string): boolean {
    const located = this.architecture.locate(name, this.metadata);
    if (located === null) return false;
    return [located.stored].flat().every((stored) => this.file.tensors.has(stored));
  }

  load(name: string, shape: readonly number[]): WeightTensor {
    const located = this.locate(name);
    if ('compose' in located) return this.compose(located, shape);
    const part = this.part(located, shape, (stored) => this.file.read(stored));
    return located.add === undefined ? part : withAdded(part, located.add);
  }

  loadMatrix(name: string, shape: readonly number[]): MatrixTensor {
    const located = this.locate(name);
    if ('compose' in located || located.add !== undefined) return this.load(name, shape);
    return this.part(located, shape, (stored) => this.file.readStored(stored));
  }

  close(): void {
    this.file.close();
  }

  private locate(name: string): StoredPart | Composition {
    const located = this.architecture.locate(name, this.metadata);
    const names = located === null ? [] : [located.stored].flat();
    const lacking = names.find((stored) => !this.file.tensors.has(stored));
    if (located !== null && lacking === undefined) return located;
    throw new GqaError('INVALID_FILE', `${this.file.path} has no tensor ${lacking ?? name}`, {
      argument: lacking === undefined ? name : `${name} (${lacking})`,
      expected: 'a tensor',
      received: 'none',
    });
  }

  private part<T extends StoredTensor>(
    { stored, first, rowOf }: StoredPart,
    shape: readonly number[],
    read: (stored: string) => T,
  ): T {
    const whole = this.file.tensors.get(stored)!.shape;
    if (first === undefined) {
      this.checkShape(stored, whole, shape);
      return rowOf === undefined ? read(stored) : takeRows(read(stored), shape, rowOf);
    }
    const rows = rowCount(shape);
    const sameColumns = shape.length === 1 ? whole.length === 1 : whole.at(-1) === shape.at(-1);
    if (!sameColumns || first + rows > rowCount(whole)) {
      const expected = `${first + rows} rows of ${stored}, for a part of shape [${shape.join(', ')}]`;
      throw invalidFile(this.file.path, expected, `[${whole.join(', ')}]`);
    }
    return takeRows(read(stored), shape, (row) => first + (rowOf === undefined ? row : rowOf(row)));
  }

  private compose(composition: Composition, shape: readonly number[]): LoadedTensor {
    const expected = composition.shapeOf(shape);
    const tensors = composition.stored.map((stored) => {
      this.checkShape(stored, this.file.tensors.get(stored)!.shape, expected);
      return this.file.read(stored);
    });
    return composition.compose(tensors);
  }

  private checkShape(name: string, found: readonly number[], expected: readonly number[]): void {
    if (found.length === expected.length && found.every((size, i) => size === expected[i])) return;
    const wanted = `${name} of shape [${expected.join(', ')}]`;
    throw invalidFile(this.file.path, wanted, `[${found.join(', ')}]`);
  }
}

/** In f32; GGUF keeps norms in it, and what was added to a bf16 was added there. */
function withAdded(tensor: LoadedTensor, add: number): LoadedTensor {
  const data = valuesOf(tensor).map((x) => x + add);
  return { shape: tensor.shape, dtype: 'f32', data };
}
