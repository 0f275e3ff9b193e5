/**
 * A model run over many windows layer by layer instead of window by window: the hidden states of all windows are held,
 * the weights of one layer at a time. What looks into layers, converts them or measures them goes this way.
 *
 *   const pass = new LayerPass(config, weights, longestWindow);
 *   const states = pass.embed(windows);
 *   for (const layer of pass.layers()) {
 *     for (const x of states.rows()) attention(...pass.project(layer, x), { causal: true, stats });
 *     pass.advance(layer, states);
 *   }
 *
 * Windows are separate texts: each begins at position 0, and attention is causal within it. Activations are f32.
 */
import { attention } from '../attention';
import { getBackend } from '../backend';
import { Tensor } from '../core/tensor';
import { loadBlockLayers, type BlockLayers } from '../model/arch/llama';
import type { ModelConfig, WeightSource } from '../model/types';
import { Embedding } from '../nn/embedding';
import { Linear } from '../nn/linear';
import { Rope } from '../nn/rope';
import { HiddenStates } from './hidden-states';

export { HiddenStates } from './hidden-states';

/** Queries, keys and values of one window, turned to their positions. */
export type Projected = [
  /** [1, tokens, heads, headDim] */
  query: Tensor<'f32'>,
  /** [1, tokens, kvHeads, headDim], as key */
  key: Tensor<'f32'>,
  value: Tensor<'f32'>,
];

export class LayerPass {
  private readonly rope: Rope;
  private readonly buffers: PassBuffers;

  /** @param maxTokens of the longest window */
  constructor(
    readonly config: ModelConfig,
    private readonly weights: WeightSource,
    maxTokens: number,
  ) {
    this.rope = new Rope({ headDim: config.headDim, ...config.rope });
    this.buffers = new PassBuffers(config, maxTokens);
  }

  /** The states before the first layer. @throws GqaError INVALID_FILE, OUT_OF_RANGE, OUT_OF_MEMORY */
  embed(windows: readonly Int32Array[]): HiddenStates {
    const { vocabSize, hiddenSize } = this.config;
    const name = 'model.embed_tokens.weight';
    const table = new Embedding(this.weights.loadMatrix(name, [vocabSize, hiddenSize]));
    try {
      const states = new HiddenStates(windows, hiddenSize);
      windows.forEach((ids, i) => table.apply(ids, states.window(i)));
      return states;
    } finally {
      table.dispose();
    }
  }

  /** Each layer's norms and projections in order; those of a layer are freed when the next is asked for. */
  *layers(): Generator<BlockLayers> {
    for (let i = 0; i < this.config.layers; i++) {
      const layer = loadBlockLayers(this.config, this.weights, i);
      try {
        yield layer;
      } finally {
        for (const part of Object.values(layer)) if (part instanceof Linear) part.dispose();
      }
    }
  }

  /** The normalised inputs of a layer's attention, [tokens, hiddenSize]; of use until the next call. */
  normalise(layer: BlockLayers, x: Float32Array): Float32Array {
    const { normed } = this.buffers;
    const tokens = x.length / this.config.hiddenSize;
    layer.attentionNorm.apply(x, normed, tokens);
    return normed.subarray(0, x.length);
  }

  /** Queries, keys and values of the states x of one window; of use until the next call. */
  project(layer: BlockLayers, x: Float32Array): Projected {
    const normed = this.normalise(layer, x);
    const tokens = x.length / this.config.hiddenSize;
    const project = (linear: Linear, out: Float32Array, turned: boolean): Tensor<'f32'> => {
      linear.apply(normed, out, tokens);
      const heads = linear.outFeatures / this.config.headDim;
      if (turned) this.rope.apply(out, tokens, heads, 0);
      const shape = [1, tokens, heads, this.config.headDim];
      return Tensor.view(out.subarray(0, tokens * linear.outFeatures), shape);
    };
    const { query, key, value } = this.buffers;
    return [
      project(layer.query, query, true),
      project(layer.key, key, true),
      project(layer.value, value, false),
    ];
  }

  /** What attention gives for x, before the output projection: [tokens, heads * headDim]; of use until the next call. */
  attend(layer: BlockLayers, x: Float32Array): Float32Array {
    const [q, k, v] = this.project(layer, x);
    const out = Tensor.view(this.buffers.context.subarray(0, q.size), q.shape);
    attention(q, k, v, { causal: true, out });
    return out.data;
  }

  /** The same after the output projection, [tokens, hiddenSize]; of use until the next call. */
  attentionOutput(layer: BlockLayers, x: Float32Array): Float32Array {
    const out = this.buffers.output.subarray(0, x.length);
    layer.output.apply(this.attend(layer, x), out, x.length / this.config.hiddenSize);
    return out;
  }

  /** Takes all windows through the layer, in place. `look` sees each window's attention output before it is added. */
  advance(
    layer: BlockLayers,
    states: HiddenStates,
    look?: (window: number, output: Float32Array) => void,
  ): void {
    const backend = getBackend();
    for (let i = 0; i < states.windows; i++) {
      const x = states.window(i);
      const output = this.attentionOutput(layer, x);
      look?.(i, output);
      backend.add(x, output, x.length);
      this.applyMlp(layer, x);
    }
  }

  /** x += down(silu(gate(n)) * up(n)), n = rmsNorm(x) */
  private applyMlp(layer: BlockLayers, x: Float32Array): void {
    const backend = getBackend();
    const { gated } = this.buffers;
    const shared = { tokens: x.length / this.config.hiddenSize, precision: 'exact' as const };
    backend.fusedLinear({
      ...shared,
      x,
      norm: layer.mlpNorm.prologue,
      parts: [layer.gate.part(gated), layer.up.part(gated)],
      combine: 'gated',
    });
    const parts = [layer.down.part(x)];
    backend.fusedLinear({ ...shared, x: gated, norm: null, parts, combine: 'add' });
  }
}

/** Intermediate results of one window. */
class PassBuffers {
  readonly normed: Float32Array;
  readonly output: Float32Array;
  readonly query: Float32Array;
  readonly key: Float32Array;
  readonly value: Float32Array;
  readonly context: Float32Array;
  readonly gated: Float32Array;

  constructor(
    { hiddenSize, intermediateSize, heads, kvHeads, headDim }: ModelConfig,
    tokens: number,
  ) {
    const floats = (perToken: number): Float32Array => new Float32Array(tokens * perToken);
    this.normed = floats(hiddenSize);
    this.output = floats(hiddenSize);
    this.query = floats(heads * headDim);
    this.key = floats(kvHeads * headDim);
    this.value = floats(kvHeads * headDim);
    this.context = floats(heads * headDim);
    this.gated = floats(intermediateSize);
  }
}
