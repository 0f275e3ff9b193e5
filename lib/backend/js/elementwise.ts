/** RoPE, addition and dtype conversion over rows. */
import type { FloatData, FloatDType } from '../../core/dtype';
import type { ConvertArgs, RopeArgs } from '../contract';
import { narrow, widen } from './rows';

/** (a, b) -> (a cos - b sin, a sin + b cos) over the pairs of each head, in place. */
export function rope(args: RopeArgs): void {
  const { x, cos, sin, tokens, heads, headDim, rotaryDim, interleaved } = args;
  const pairs = rotaryDim / 2;
  const step = interleaved ? 2 : 1;
  const partner = interleaved ? 1 : pairs;
  for (let t = 0; t < tokens; t++) {
    const angles = t * pairs;
    for (let h = 0; h < heads; h++) {
      const head = (t * heads + h) * headDim;
      for (let r = 0; r < pairs; r++) {
        const i = head + r * step;
        const a = x[i];
        const b = x[i + partner];
        x[i] = a * cos[angles + r] - b * sin[angles + r];
        x[i + partner] = a * sin[angles + r] + b * cos[angles + r];
      }
    }
  }
}

/** x += y */
export function add(x: Float32Array, y: Float32Array, count: number): void {
  for (let i = 0; i < count; i++) x[i] += y[i];
}

/** Elements converted through one small buffer at a time, so that a large array needs no second one. */
const CHUNK = 4096;
const chunk = new Float32Array(CHUNK);

export function convert(args: ConvertArgs): void {
  const { from, fromDtype, to, toDtype, count } = args;
  if (fromDtype === toDtype) {
    to.set(from.subarray(0, count));
    return;
  }
  for (let start = 0; start < count; start += CHUNK) {
    const width = Math.min(CHUNK, count - start);
    widen(from, fromDtype, start, chunk, 0, width);
    narrow(chunk, to, toDtype, start, 1, width);
  }
}

export function allBelow(
  data: FloatData,
  dtype: FloatDType,
  count: number,
  limit: number,
): boolean {
  for (let start = 0; start < count; start += CHUNK) {
    const width = Math.min(CHUNK, count - start);
    widen(data, dtype, start, chunk, 0, width);
    for (let i = 0; i < width; i++) if (!(Math.abs(chunk[i]) < limit)) return false;
  }
  return true;
}
