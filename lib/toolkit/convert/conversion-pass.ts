/**
 * A conversion under way, seen over texts: the original goes through calibration text and the text of the report, the
 * converted model through the latter, one layer at a time (see layer-pass.ts).
 */
import type { LoadedTensor } from '../../format/file';
import type { CheckpointSource } from '../../model/checkpoint-io/types';
import { Linear } from '../../nn/linear';
import type { BlockLayers } from '../../model/arch/llama';
import type { Corpus } from '../corpus';
import { LayerPass, type HiddenStates } from '../layer-pass';
import { OutputHead, type Comparison } from '../output-head';
import { readOutputBias, tensorsOf } from './layer-tensors';
import { Moments, type Rows } from './matrices';
import { OutputRefit } from './refit';

export interface PassTexts {
  /** Of the report; null without one. */
  text: Corpus | null;
  /** Null where nothing is calibrated; may be the text itself. */
  calibration: Corpus | null;
}

export class ConversionPass {
  private readonly original: LayerPass;
  private readonly converted: LayerPass;
  private readonly before: HiddenStates | null;
  private readonly after: HiddenStates | null;
  private readonly calibration: HiddenStates | null;
  private readonly layers: Iterator<BlockLayers>;

  /** @throws GqaError INVALID_FILE, OUT_OF_MEMORY */
  constructor(
    private readonly source: CheckpointSource,
    { text, calibration }: PassTexts,
  ) {
    const { config, weights } = source;
    const lengths = [text, calibration].flatMap((corpus) => corpus?.windows ?? []);
    const longest = Math.max(...lengths.map(({ length }) => length));
    this.original = new LayerPass(config, weights, longest);
    this.converted = new LayerPass(config, weights, longest);
    this.before = text && this.original.embed(text.windows);
    this.after = this.before?.copy() ?? null;
    const own = calibration !== null && calibration !== text;
    this.calibration = own ? this.original.embed(calibration.windows) : calibration && this.before;
    this.layers = this.original.layers();
  }

  /** The next layer; what the one before held is freed. */
  next(): BlockLayers {
    return this.layers.next().value as BlockLayers;
  }

  /** E[x x^T] of the layer's attention inputs in the calibration text, x with a last 1 where there are biases. */
  moment(layer: BlockLayers): Rows | null {
    if (this.calibration === null) return null;
    const { hiddenSize, attentionBias } = this.source.config;
    const columns = hiddenSize + (attentionBias ? 1 : 0);
    const moments = new Moments(columns, columns);
    for (const x of this.calibration.rows()) {
      const normed = this.original.normalise(layer, x);
      const rows = x.length / hiddenSize;
      const inputs = { data: attentionBias ? withOnes(normed, hiddenSize) : normed, rows, columns };
      moments.add(inputs, inputs);
    }
    const data = Float32Array.from(moments.mean().to1DArray());
    return { data, rows: columns, columns };
  }

  /** The output projection that comes nearest to the original's outputs; `folded` without calibration text. */
  refit(index: number, layer: BlockLayers, after: BlockLayers, folded: Rows): Rows {
    if (this.calibration === null) return folded;
    const bias = readOutputBias(this.source, index);
    const refit = new OutputRefit(folded.columns, folded.rows);
    for (const x of this.calibration.rows()) {
      const output = this.original.attentionOutput(layer, x);
      if (bias !== null) for (let i = 0; i < output.length; i++) output[i] -= bias[i % bias.length];
      refit.add(this.converted.attend(after, x), output);
    }
    return refit.solve(folded);
  }

  /**
   * Takes all texts through the layer. Returns the relative error of the converted layer's attention output for the
   * original's inputs, sqrt(sum |o - o'|^2 / sum |o|^2); null without a text.
   */
  advance(layer: BlockLayers, after: BlockLayers): number | null {
    const { before, calibration } = this;
    if (calibration !== null && calibration !== before) this.original.advance(layer, calibration);
    if (before === null || this.after === null) return null;
    let [difference, whole] = [0, 0];
    this.original.advance(layer, before, (window, output) => {
      const other = this.converted.attentionOutput(after, before.window(window));
      for (let i = 0; i < output.length; i++) {
        difference += (output[i] - other[i]) ** 2;
        whole += output[i] ** 2;
      }
    });
    this.converted.advance(after, this.after);
    return whole > 0 ? Math.sqrt(difference / whole) : 0;
  }

  /** After the last layer; null without a text. */
  compare(onWindow: (done: number) => void): Comparison | null {
    if (this.before === null || this.after === null) return null;
    const head = new OutputHead(this.source.config, this.source.weights);
    try {
      return head.compare(this.before, this.after, onWindow);
    } finally {
      head.dispose();
    }
  }

  /** Frees the weights of the layer under way. */
  dispose(): void {
    this.layers.return?.();
  }
}

/** The layer with its attention projections made from other tensors; the rest is shared. */
export function withProjections(
  layer: BlockLayers,
  index: number,
  tensors: ReadonlyMap<string, LoadedTensor>,
  outputBias: LoadedTensor | null,
): BlockLayers {
  const linear = (part: 'q_proj' | 'k_proj' | 'v_proj' | 'o_proj'): Linear => {
    const { weight, bias } = tensorsOf(tensors, index, part);
    return new Linear(weight, part === 'o_proj' ? outputBias : bias);
  };
  return {
    ...layer,
    query: linear('q_proj'),
    key: linear('k_proj'),
    value: linear('v_proj'),
    output: linear('o_proj'),
  };
}

/** Frees what withProjections made. */
export function disposeProjections({ query, key, value, output }: BlockLayers): void {
  for (const linear of [query, key, value, output]) linear.dispose();
}

/** [tokens, columns] to [tokens, columns + 1]. */
function withOnes(x: Float32Array, columns: number): Float32Array {
  const tokens = x.length / columns;
  const out = new Float32Array(tokens * (columns + 1)).fill(1);
  for (let t = 0; t < tokens; t++) {
    out.set(x.subarray(t * columns, (t + 1) * columns), t * (columns + 1));
  }
  return out;
}
