/** Rows of any float dtype to and from f32. Rounding lives in core/half.ts. */
import type { FloatData, FloatDType } from '../../core/dtype';
import { bf16BitsToF32, f16BitsToF32, f32ToBf16Bits, f32ToF16Bits } from '../../core/half';

const BIT_PATTERNS = 65536;
const tables = new Map<FloatDType, Float32Array>();

/** The value of each of the 65,536 bit patterns of f16 or bf16; built at first use. */
export function widenTable(dtype: FloatDType): Float32Array {
  let table = tables.get(dtype);
  if (table === undefined) {
    const valueOf = dtype === 'f16' ? f16BitsToF32 : bf16BitsToF32;
    table = Float32Array.from({ length: BIT_PATTERNS }, (_, bits) => valueOf(bits));
    tables.set(dtype, table);
  }
  return table;
}

/** target[to + i] = source[from + i] as f32, for i < count. */
export function widen(
  source: FloatData,
  dtype: FloatDType,
  from: number,
  target: Float32Array,
  to: number,
  count: number,
): void {
  if (dtype === 'f32') {
    const floats = source as Float32Array;
    for (let i = 0; i < count; i++) target[to + i] = floats[from + i];
  } else {
    const bits = source as Uint16Array;
    const table = widenTable(dtype);
    for (let i = 0; i < count; i++) target[to + i] = table[bits[from + i]];
  }
}

/** target[to + i * step] = source[i] rounded to dtype, for i < count. */
export function narrow(
  source: Float32Array,
  target: FloatData,
  dtype: FloatDType,
  to: number,
  step: number,
  count: number,
): void {
  if (dtype === 'f32') {
    const floats = target as Float32Array;
    for (let i = 0; i < count; i++) floats[to + i * step] = source[i];
  } else if (dtype === 'f16') {
    const bits = target as Uint16Array;
    for (let i = 0; i < count; i++) bits[to + i * step] = f32ToF16Bits(source[i]);
  } else {
    const bits = target as Uint16Array;
    for (let i = 0; i < count; i++) bits[to + i * step] = f32ToBf16Bits(source[i]);
  }
}
