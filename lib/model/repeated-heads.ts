/**
 * Folders whose layers have different numbers of KV heads: each layer's heads are stored as often as makes the largest
 * number, so that a reader of plain Llama folders computes the same, and `gqa_kv_heads` of config.json has the true
 * numbers. Head n of a layer with `kvHeads` of `stored` heads lies at stored heads n R .. n R + R - 1, R = stored / kvHeads.
 */
import { invalidFile, type LoadedTensor } from '../format/file';
import type { WeightSource, WeightTensor } from './types';

const KEY_OR_VALUE = /^model\.layers\.(\d+)\.self_attn\.[kv]_proj\.(?:weight|bias)$/;

/** The layer whose K or V projection, or bias, the tensor is; null for all others. */
export function keyValueLayer(name: string): number | null {
  const match = KEY_OR_VALUE.exec(name);
  return match === null ? null : Number(match[1]);
}

/** The weights with each layer's KV heads once. `layerKvHeads` divide `stored`, the number of heads in the files. */
export function readHeadsOnce(
  path: string,
  weights: WeightSource,
  layerKvHeads: readonly number[],
  stored: number,
): WeightSource {
  const load = (name: string, shape: readonly number[]): WeightTensor => {
    const layer = keyValueLayer(name);
    const kvHeads = layer === null ? stored : (layerKvHeads[layer] ?? stored);
    if (kvHeads === stored) return weights.load(name, shape);
    const repeats = stored / kvHeads;
    const whole = weights.load(name, [shape[0] * repeats, ...shape.slice(1)]);
    return headsOnce(path, name, whole, kvHeads, repeats);
  };
  return {
    has: (name) => weights.has(name),
    load,
    loadMatrix: (name, shape) =>
      keyValueLayer(name) === null ? weights.loadMatrix(name, shape) : load(name, shape),
    close: () => weights.close(),
  };
}

/**
 * [kvHeads * repeats * headDim, ...] to [kvHeads * headDim, ...].
 * @throws GqaError INVALID_FILE where the copies of a head differ: taking one would change the model.
 */
export function headsOnce(
  path: string,
  name: string,
  tensor: LoadedTensor,
  kvHeads: number,
  repeats: number,
): LoadedTensor {
  const { shape, dtype, data } = tensor;
  const size = data.length / (kvHeads * repeats);
  const out = data.slice(0, kvHeads * size);
  for (let head = 0; head < kvHeads; head++) {
    const first = data.subarray(head * repeats * size, (head * repeats + 1) * size);
    out.set(first, head * size);
    for (let copy = 1; copy < repeats; copy++) {
      const at = (head * repeats + copy) * size;
      if (!sameBits(first, data.subarray(at, at + size))) {
        throw invalidFile(
          path,
          `${repeats} equal copies of each head of ${name}`,
          'different ones',
        );
      }
    }
  }
  return { shape: [shape[0] / repeats, ...shape.slice(1)], dtype, data: out };
}

/** [kvHeads * headDim, ...] to [kvHeads * repeats * headDim, ...]. */
export function headsRepeated(
  tensor: LoadedTensor,
  kvHeads: number,
  repeats: number,
): LoadedTensor {
  const { shape, dtype, data } = tensor;
  const size = data.length / kvHeads;
  const out =
    dtype === 'f32'
      ? new Float32Array(repeats * data.length)
      : new Uint16Array(repeats * data.length);
  for (let head = 0; head < kvHeads; head++) {
    const one = data.subarray(head * size, (head + 1) * size);
    for (let copy = 0; copy < repeats; copy++) out.set(one, (head * repeats + copy) * size);
  }
  return { shape: [shape[0] * repeats, ...shape.slice(1)], dtype, data: out };
}

function sameBits(a: LoadedTensor['data'], b: LoadedTensor['data']): boolean {
  const bytes = (x: LoadedTensor['data']): Buffer =>
    Buffer.from(x.buffer, x.byteOffset, x.byteLength);
  return bytes(a).equals(bytes(b));
}
