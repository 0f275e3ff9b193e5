/**
 * Keys of a block and KV head, quantised per dim over its tokens: x = d q + m, m = f16(min x), d = f16((max x - m) / L),
 * L = 255 (q8) or 15 (q4), q = round((x - m) / d) of [0, L]; see docs/numerics.md.
 *
 * Codes lie as float keys do, [tokens / 8][headDim][8 tokens]: bytes, or nibbles, two tokens a byte with the even one in
 * the low half. Minimums, then scales are [2][headDim].
 */
import { quantum } from '../../core/blocks';
import { f16BitsToF32, f32ToF16Bits } from '../../core/half';
import type { JsArena } from './arena';
import { newPlace } from './arena';
import { LANES } from './panel';
import { widenTable } from './rows';

const codes = newPlace();
const scales = newPlace();

/** Panels [from, to) of a block into `panels`, at their places. */
export function dequantizeKeys(
  arena: JsArena,
  kvHead: number,
  id: number,
  panels: Float32Array,
  from: number,
  to: number,
): void {
  const { headDim, keyDtype } = arena.layout;
  arena.locateKeys(kvHead, id, codes);
  arena.locateKeyScales(kvHead, id, scales);
  const halves = scales.data as Uint16Array;
  const values = widenTable('f16');
  const widenDim = keyDtype === 'q8' ? widenBytes : widenNibbles;
  const step = headDim * LANES;
  for (let dim = 0; dim < headDim; dim++) {
    const minimum = values[halves[scales.offset + dim]];
    const scale = values[halves[scales.offset + headDim + dim]];
    const first = dim * LANES;
    widenDim(panels, from * step + first, to * step + first, step, scale, minimum);
  }
}

/** Elements [at, at + 8) of each panel of the block at `codes`, `step` apart; at and end are counted in elements. */
function widenBytes(
  panels: Float32Array,
  at: number,
  end: number,
  step: number,
  scale: number,
  minimum: number,
): void {
  const { data, offset } = codes;
  for (; at < end; at += step) {
    const from = offset + at;
    for (let lane = 0; lane < LANES; lane++) {
      panels[at + lane] = scale * data[from + lane] + minimum;
    }
  }
}

function widenNibbles(
  panels: Float32Array,
  at: number,
  end: number,
  step: number,
  scale: number,
  minimum: number,
): void {
  const { data, offset } = codes;
  for (; at < end; at += step) {
    const from = offset + at / 2;
    for (let pair = 0; pair < LANES / 2; pair++) {
      const both = data[from + pair];
      panels[at + 2 * pair] = scale * (both & 15) + minimum;
      panels[at + 2 * pair + 1] = scale * (both >> 4) + minimum;
    }
  }
}

/** A whole block from its f32 panels. f32 arithmetic: every backend makes the same bits. */
export function quantizeKeys(
  panels: Float32Array,
  offset: number,
  arena: JsArena,
  kvHead: number,
  id: number,
): void {
  const { headDim, keyDtype, blockTokens } = arena.layout;
  const most = keyDtype === 'q8' ? 255 : 15;
  const step = headDim * LANES;
  const end = blockTokens * headDim;
  arena.locateKeys(kvHead, id, codes);
  arena.locateKeyScales(kvHead, id, scales);
  for (let dim = 0; dim < headDim; dim++) {
    const [low, high] = range(panels, offset + dim * LANES, offset + end, step);
    const minimum = putHalf(dim, low + 0); // no minimum is -0
    const scale = putHalf(headDim + dim, Math.fround(Math.fround(high - minimum) / most));
    const inverse = scale === 0 ? 0 : Math.fround(1 / scale);
    for (let at = dim * LANES; at < end; at += step) {
      for (let lane = 0; lane < LANES; lane++) {
        const above = Math.fround(panels[offset + at + lane] - minimum);
        putCode(keyDtype, at + lane, quantum(above, inverse, 0, most));
      }
    }
  }
}

/** Smallest and largest of the 8 elements at `at` and every `step` elements on. */
function range(panels: Float32Array, at: number, end: number, step: number): [number, number] {
  let low = Infinity;
  let high = -Infinity;
  for (; at < end; at += step) {
    for (let lane = 0; lane < LANES; lane++) {
      low = Math.min(low, panels[at + lane]);
      high = Math.max(high, panels[at + lane]);
    }
  }
  return [low, high];
}

function putHalf(at: number, value: number): number {
  const bits = f32ToF16Bits(value);
  (scales.data as Uint16Array)[scales.offset + at] = bits;
  return f16BitsToF32(bits);
}

/** Element `at` of the block at `codes`; of a pair of nibbles the even one comes first. */
function putCode(dtype: string, at: number, code: number): void {
  const { data, offset } = codes;
  if (dtype === 'q8') data[offset + at] = code;
  else if (at % 2 === 0) data[offset + at / 2] = code;
  else data[offset + (at - 1) / 2] |= code << 4;
}
