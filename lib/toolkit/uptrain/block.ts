/**
 * One pre-norm block of the Llama family, forward and backward, over a batch of windows of tokens [batch * window, ...]:
 *   mid = x + output(attention(rope(query(n)), rope(key(n)), value(n))),  n = rmsNorm(x),
 *   next = mid + down(silu(gate(m)) up(m)),  m = rmsNorm(mid).
 * Kept for the backward pass: x, mid, the turned queries and keys, values, attention's result and LSE, gate and up. Norms
 * and silu(gate) up are made again.
 */
import { attention } from '../../attention';
import type { FusedNorm } from '../../backend/contract';
import { Tensor } from '../../core/tensor';
import { kvHeadsOf, type Parameter, type Parameters } from './parameters';
import { linearBackward, TrainedLinear, type Products } from './products';
import type { ModelConfig } from '../../model/types';
import type { Rotation } from './rotation';

/** Windows of one length, side by side. */
export interface Span {
  batch: number;
  /** Tokens of each. */
  window: number;
}

/** What a block keeps of a forward pass; `mid` and those before have a row per token. */
export class BlockActivations {
  readonly x: Float32Array;
  readonly mid: Float32Array;
  readonly query: Float32Array;
  readonly key: Float32Array;
  readonly value: Float32Array;
  readonly context: Float32Array;
  readonly gate: Float32Array;
  readonly up: Float32Array;
  lse: Float32Array = new Float32Array(0);

  constructor(config: ModelConfig, tokens: number) {
    const { hiddenSize, intermediateSize, heads, kvHeads, headDim } = config;
    const floats = (perToken: number): Float32Array => new Float32Array(tokens * perToken);
    this.x = floats(hiddenSize);
    this.mid = floats(hiddenSize);
    this.query = floats(heads * headDim);
    this.key = floats(kvHeads * headDim);
    this.value = floats(kvHeads * headDim);
    this.context = floats(heads * headDim);
    this.gate = floats(intermediateSize);
    this.up = floats(intermediateSize);
  }
}

/** Memory that all blocks share, one after the other. */
export class BlockScratch {
  readonly normed: Float32Array;
  readonly gated: Float32Array;
  readonly gradNormed: Float32Array;
  readonly gradQuery: Float32Array;
  readonly gradKey: Float32Array;
  readonly gradValue: Float32Array;
  readonly gradContext: Float32Array;

  constructor(config: ModelConfig, tokens: number, backward: boolean) {
    const { hiddenSize, intermediateSize, heads, kvHeads, headDim } = config;
    const floats = (perToken: number): Float32Array => new Float32Array(tokens * perToken);
    const gradients = (perToken: number): Float32Array => floats(backward ? perToken : 0);
    this.normed = gradients(hiddenSize);
    this.gated = floats(intermediateSize);
    this.gradNormed = gradients(hiddenSize);
    this.gradQuery = gradients(heads * headDim);
    this.gradKey = gradients(kvHeads * headDim);
    this.gradValue = gradients(kvHeads * headDim);
    this.gradContext = gradients(heads * headDim);
  }
}

const LINEAR_NAMES = {
  query: 'self_attn.q_proj',
  key: 'self_attn.k_proj',
  value: 'self_attn.v_proj',
  output: 'self_attn.o_proj',
  gate: 'mlp.gate_proj',
  up: 'mlp.up_proj',
  down: 'mlp.down_proj',
} as const;

type LinearName = keyof typeof LINEAR_NAMES;

export class TrainedBlock {
  readonly linears: Readonly<Record<LinearName, TrainedLinear>>;
  private readonly attentionNorm: Parameter;
  private readonly mlpNorm: Parameter;
  private readonly kvHeads: number;

  constructor(
    private readonly config: ModelConfig,
    layer: number,
    parameters: Parameters,
    private readonly products: Products,
    private readonly rotation: Rotation,
  ) {
    const name = (part: string): string => `model.layers.${layer}.${part}`;
    const linear = (part: string): TrainedLinear =>
      new TrainedLinear(
        products,
        parameters.get(name(`${part}.weight`))!,
        parameters.get(name(`${part}.bias`)) ?? null,
      );
    this.linears = Object.fromEntries(
      Object.entries(LINEAR_NAMES).map(([key, part]) => [key, linear(part)]),
    ) as Record<LinearName, TrainedLinear>;
    this.attentionNorm = parameters.get(name('input_layernorm.weight'))!;
    this.mlpNorm = parameters.get(name('post_attention_layernorm.weight'))!;
    this.kvHeads = kvHeadsOf(config, layer);
  }

  /** kept.x [tokens, hiddenSize] is the input; the output goes to next. */
  forward(kept: BlockActivations, scratch: BlockScratch, next: Float32Array, span: Span): void {
    const { products, rotation } = this;
    const { query, key, value, output, gate, up, down } = this.linears;
    const { heads, hiddenSize, intermediateSize } = this.config;
    const tokens = span.batch * span.window;
    const hidden = tokens * hiddenSize;

    const projected = [query.part(kept.query), key.part(kept.key), value.part(kept.value)];
    products.multiplyAll(kept.x, tokens, projected, 'write', this.normOf(this.attentionNorm));
    rotation.apply(kept.query, heads, span);
    rotation.apply(kept.key, this.kvHeads, span);
    this.attend(kept, span);
    kept.mid.set(kept.x.subarray(0, hidden));
    products.multiply(kept.context, tokens, output.part(kept.mid), 'add');

    const widened = [gate.part(kept.gate), up.part(kept.up)];
    products.multiplyAll(kept.mid, tokens, widened, 'write', this.normOf(this.mlpNorm));
    this.gate(kept, scratch.gated, tokens * intermediateSize);
    next.set(kept.mid.subarray(0, hidden));
    products.multiply(scratch.gated, tokens, down.part(next), 'add');
  }

  /**
   * gradient [tokens, hiddenSize] is that of the output and becomes that of the input. kept.gate and kept.up are used up.
   */
  backward(
    kept: BlockActivations,
    scratch: BlockScratch,
    gradient: Float32Array,
    span: Span,
  ): void {
    const { products, rotation } = this;
    const { query, key, value, output, gate, up, down } = this.linears;
    const { heads, intermediateSize } = this.config;
    const { normed, gated, gradNormed, gradContext } = scratch;
    const tokens = span.batch * span.window;
    const inner = tokens * intermediateSize;

    // What was added to mid; the gradient itself goes on to mid, past the MLP.
    this.gate(kept, gated, inner);
    const throughDown = [{ layer: down, gradOut: gradient }];
    linearBackward(products, throughDown, gated, gated, tokens);
    products.backend.swigluBackward({
      gate: kept.gate,
      up: kept.up,
      gradOut: gated,
      gradGate: kept.gate,
      gradUp: kept.up,
      count: inner,
    });
    this.normalise(kept.mid, this.mlpNorm, normed, tokens);
    const throughGate = [
      { layer: gate, gradOut: kept.gate },
      { layer: up, gradOut: kept.up },
    ];
    linearBackward(products, throughGate, normed, gradNormed, tokens);
    this.normBackward(kept.mid, this.mlpNorm, gradNormed, gradient, tokens);

    // What was added to x, likewise.
    const throughOutput = [{ layer: output, gradOut: gradient }];
    linearBackward(products, throughOutput, kept.context, gradContext, tokens);
    this.attendBackward(kept, scratch, span);
    rotation.applyBackward(scratch.gradQuery, heads, span);
    rotation.applyBackward(scratch.gradKey, this.kvHeads, span);
    this.normalise(kept.x, this.attentionNorm, normed, tokens);
    const throughInputs = [
      { layer: query, gradOut: scratch.gradQuery },
      { layer: key, gradOut: scratch.gradKey },
      { layer: value, gradOut: scratch.gradValue },
    ];
    linearBackward(products, throughInputs, normed, gradNormed, tokens);
    this.normBackward(kept.x, this.attentionNorm, gradNormed, gradient, tokens);
  }

  private normOf({ weight }: Parameter): FusedNorm {
    return { kind: 'rms', weight, bias: null, eps: this.config.rmsNormEps };
  }

  private normalise(x: Float32Array, norm: Parameter, out: Float32Array, tokens: number): void {
    const { hiddenSize: dim, rmsNormEps: eps } = this.config;
    this.products.backend.rmsNorm({ x, weight: norm.weight, out, tokens, dim, eps });
  }

  private normBackward(
    x: Float32Array,
    { weight, training }: Parameter,
    gradOut: Float32Array,
    gradX: Float32Array,
    tokens: number,
  ): void {
    const { hiddenSize: dim, rmsNormEps: eps } = this.config;
    const gradWeight = training?.gradient ?? null;
    const args = { x, weight, gradOut, gradX, gradWeight, tokens, dim, eps };
    this.products.backend.rmsNormBackward(args);
  }

  private gate({ gate, up }: BlockActivations, out: Float32Array, count: number): void {
    this.products.backend.activate({ activation: 'silu', x: gate, second: up, out, count });
  }

  /** Causal attention of each window over itself. */
  private attend(kept: BlockActivations, { batch, window }: Span): void {
    const { heads, headDim } = this.config;
    const view = (data: Float32Array, count: number): Tensor<'f32'> =>
      Tensor.view(data.subarray(0, batch * window * count * headDim), [
        batch,
        window,
        count,
        headDim,
      ]);
    const { lse } = attention(
      view(kept.query, heads),
      view(kept.key, this.kvHeads),
      view(kept.value, this.kvHeads),
      { causal: true, out: view(kept.context, heads), returnLse: true },
    );
    kept.lse = lse.data;
  }

  private attendBackward(kept: BlockActivations, scratch: BlockScratch, span: Span): void {
    const { heads, headDim } = this.config;
    this.products.backend.attendBackward({
      q: kept.query,
      k: kept.key,
      v: kept.value,
      out: kept.context,
      lse: kept.lse,
      gradOut: scratch.gradContext,
      gradQ: scratch.gradQuery,
      gradK: scratch.gradKey,
      gradV: scratch.gradValue,
      batch: span.batch,
      queryTokens: span.window,
      keyTokens: span.window,
      heads,
      kvHeads: this.kvHeads,
      headDim,
      valueDim: headDim,
      causal: true,
      window: Infinity,
      sinkTokens: 0,
      scale: 1 / Math.sqrt(headDim),
      softcap: 0,
    });
  }

  /** After a step. */
  refresh(): void {
    for (const linear of Object.values(this.linears)) linear.refresh();
  }

  dispose(): void {
    for (const linear of Object.values(this.linears)) linear.dispose();
  }
}
