/**
 * Matrices whose packed weights come from elsewhere, a file that processes share: a layer takes those and never looks at
 * the matrix's data, which may be read only when asked for.
 */
import type { Backend, PackedWeights } from '../backend/contract';
import type { MatrixWeights } from './inputs';

/** By the object, not by a field of it: a changed copy of a matrix is another matrix. */
const packers = new WeakMap<object, () => PackedWeights>();

/** From now on packing `matrix` is calling `pack`, which must give what the backend would make of the matrix. */
export function providePacked(matrix: MatrixWeights, pack: () => PackedWeights): void {
  packers.set(matrix, pack);
}

export function hasPacker(matrix: unknown): boolean {
  return typeof matrix === 'object' && matrix !== null && packers.has(matrix);
}

/** @throws GqaError OUT_OF_MEMORY */
export function packMatrix(backend: Backend, matrix: MatrixWeights): PackedWeights {
  const pack = packers.get(matrix);
  if (pack !== undefined) return pack();
  const { data: weight, dtype, shape } = matrix;
  return backend.packWeights({ weight, dtype, rows: shape[0], columns: shape[1] });
}
