/** Layers of nn made of a checkpoint's tensors, by their names; matrices that are stored as one may be cut into several. */
import { widen } from '../nn/inputs';
import { Linear } from '../nn/linear';
import { LayerNorm } from '../nn/layer-norm';
import { RmsNorm } from '../nn/rms-norm';
import type { MatrixTensor, WeightSource, WeightTensor } from './types';

/** Rows [from, to) of a stored matrix. */
export type RowRange = readonly [from: number, to: number];

/** The rows of parts that lie one after the other, each of so many rows. */
export function stackedRows(sizes: readonly number[]): RowRange[][] {
  let end = 0;
  return sizes.map((size) => [[end, (end += size)]]);
}

/** The rows of queries, keys and values where each KV head's queries lie before its key and its value. */
export function groupedRows(heads: number, kvHeads: number, headDim: number): RowRange[][] {
  const queries = (heads / kvHeads) * headDim;
  const starts = Array.from({ length: kvHeads }, (_, head) => head * (queries + 2 * headDim));
  const rows = (from: number, size: number): RowRange[] =>
    starts.map((start) => [start + from, start + from + size]);
  return [rows(0, queries), rows(queries, headDim), rows(queries + headDim, headDim)];
}

export class LayerSource {
  constructor(private readonly weights: WeightSource) {}

  /** `name`.weight [out, input] and, where there is one, `name`.bias. @throws GqaError INVALID_FILE, OUT_OF_MEMORY */
  linear(name: string, out: number, input: number, bias = false): Linear {
    const weight = this.weights.loadMatrix(`${name}.weight`, [out, input]);
    return new Linear(weight, bias ? this.weights.load(`${name}.bias`, [out]) : null);
  }

  /** Several layers out of one stored matrix and its bias: of each the rows. @throws as linear */
  linears(name: string, parts: readonly RowRange[][], input: number, bias = false): Linear[] {
    const rows = Math.max(...parts.flat().map(([, to]) => to));
    let whole: MatrixTensor | null = null;
    const weight = (ranges: readonly RowRange[]) => {
      whole ??= this.weights.loadMatrix(`${name}.weight`, [rows, input]);
      return pick(whole, ranges);
    };
    const stored = bias ? this.weights.load(`${name}.bias`, [rows]) : null;
    return parts.map((ranges) => {
      const part = this.derived(`${name}.weight rows ${ranges.join(' ')}`, ranges, input, weight);
      return new Linear(part, stored && pick(stored, ranges));
    });
  }

  /** What `make` makes of a stored matrix; not made where the checkpoint's source has it already. */
  private derived(
    name: string,
    ranges: readonly RowRange[],
    input: number,
    make: (ranges: readonly RowRange[]) => MatrixTensor,
  ): MatrixTensor {
    const { weights } = this;
    if (weights.derive === undefined) return make(ranges);
    return weights.derive(name, [rowsOf(ranges), input], () => make(ranges));
  }

  /** Of `name`.weight + offset: Gemma's norms are x * (1 + w). @throws GqaError INVALID_FILE */
  rmsNorm(name: string, dim: number, eps: number, offset = 0): RmsNorm {
    const stored = this.weights.load(`${name}.weight`, [dim]);
    if (offset === 0) return new RmsNorm(stored, eps);
    const data = widen(stored).map((w) => w + offset);
    return new RmsNorm({ shape: [dim], dtype: 'f32', data }, eps);
  }

  /** With its bias. @throws GqaError INVALID_FILE */
  layerNorm(name: string, dim: number, eps: number): LayerNorm {
    const weight = this.weights.load(`${name}.weight`, [dim]);
    return new LayerNorm(weight, this.weights.load(`${name}.bias`, [dim]), eps);
  }
}

function rowsOf(ranges: readonly RowRange[]): number {
  return ranges.reduce((sum, [from, to]) => sum + to - from, 0);
}

/** These rows of a tensor, one after the other; a row may be of blocks. */
function pick<T extends MatrixTensor | WeightTensor>(tensor: T, ranges: readonly RowRange[]): T {
  const { shape, data } = tensor;
  const width = data.length / shape[0];
  const rows = rowsOf(ranges);
  const picked = { ...tensor, shape: [rows, ...shape.slice(1)] };
  if (ranges.length === 1) {
    return { ...picked, data: data.subarray(ranges[0][0] * width, ranges[0][1] * width) };
  }
  const out = data.slice(0, rows * width);
  let at = 0;
  for (const [from, to] of ranges) {
    out.set(data.subarray(from * width, to * width), at);
    at += (to - from) * width;
  }
  return { ...picked, data: out };
}
