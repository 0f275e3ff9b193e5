/** The values of stored elements as f32, written apart from the product's own conversion. */
import { valueAt } from '../../lib/cli/bench/data';
import type { FloatData, FloatDType } from '../../lib/core/dtype';

export function widenToF32(data: FloatData, dtype: FloatDType): Float32Array {
  if (dtype === 'f32') return data as Float32Array;
  return Float32Array.from(data, (_, i) => valueAt(data, dtype, i));
}
