/**
 * Linear layers in training, y = x W^T + b, x [tokens, inputs], W [features, inputs]:
 *   gradX = gradY W,  gradW += gradY^T x,  gradB += sum over tokens of gradY,
 * both products as linear layers over what they contract along: W^T, and x^T. In f32.
 */
import type { Backend, FusedNorm, LinearPart, PackedWeights } from '../../backend/contract';
import type { Parameter } from './parameters';

/** Transposes and packs; its memory for a transposed matrix is shared by all layers and grows when needed. */
export class Products {
  private turned = new Float32Array(0);

  constructor(readonly backend: Backend) {}

  pack(weight: Float32Array, rows: number, columns: number): PackedWeights {
    return this.backend.packWeights({
      weight: weight.subarray(0, rows * columns),
      dtype: 'f32',
      rows,
      columns,
    });
  }

  /** x^T of x [rows, columns], packed. */
  packTransposed(x: Float32Array, rows: number, columns: number): PackedWeights {
    return this.pack(this.transposed(x, rows, columns), columns, rows);
  }

  /** out [tokens, features] = x W^T, or added to it. */
  multiply(
    x: Float32Array,
    tokens: number,
    part: LinearPart,
    combine: 'write' | 'add' = 'write',
    norm: FusedNorm | null = null,
  ): void {
    this.multiplyAll(x, tokens, [part], combine, norm);
  }

  /** The same of up to three parts of one x. */
  multiplyAll(
    x: Float32Array,
    tokens: number,
    parts: readonly LinearPart[],
    combine: 'write' | 'add',
    norm: FusedNorm | null,
  ): void {
    this.backend.fusedLinear({ x, tokens, norm, parts, combine, precision: 'exact' });
  }

  /** gradient [features, inputs] += y^T x, of y [tokens, features] and x^T packed. */
  addOuter(y: Float32Array, features: number, turnedX: PackedWeights, gradient: Float32Array) {
    const turnedY = this.transposed(y, turnedX.columns, features);
    this.multiply(turnedY, features, { weights: turnedX, bias: null, out: gradient }, 'add');
  }

  private transposed(x: Float32Array, rows: number, columns: number): Float32Array {
    const count = rows * columns;
    if (this.turned.length < count) this.turned = new Float32Array(count);
    this.backend.transpose({ x, out: this.turned, rows, columns });
    return this.turned;
  }
}

/** One linear layer; its packed weights are made when first needed, and again after each step that changed them. */
export class TrainedLinear {
  readonly features: number;
  readonly inputs: number;
  private forward: PackedWeights | null = null;
  private backward: PackedWeights | null = null;

  constructor(
    private readonly products: Products,
    readonly weight: Parameter,
    readonly bias: Parameter | null,
  ) {
    [this.features, this.inputs] = weight.shape;
  }

  part(out: Float32Array): LinearPart {
    const { weight, features, inputs } = this;
    this.forward ??= this.products.pack(weight.weight, features, inputs);
    return { weights: this.forward, bias: this.bias?.weight ?? null, out };
  }

  /** gradX [tokens, inputs] = gradOut W, or added to it. */
  gradInput(
    gradOut: Float32Array,
    gradX: Float32Array,
    tokens: number,
    combine: 'write' | 'add',
  ): void {
    const { weight, features, inputs } = this;
    this.backward ??= this.products.packTransposed(weight.weight, features, inputs);
    this.products.multiply(gradOut, tokens, { weights: this.backward, bias: null, out: gradX }, combine); // prettier-ignore
  }

  /** Lets go of packed weights that a step has changed. */
  refresh(): void {
    if (this.weight.training !== null) this.dispose();
  }

  dispose(): void {
    this.forward?.dispose();
    this.backward?.dispose();
    this.forward = null;
    this.backward = null;
  }
}

/** A layer and the gradient of what it gave. */
export interface LayerGradient {
  layer: TrainedLinear;
  /** [tokens, features] */
  gradOut: Float32Array;
}

/** Backward through layers of one input x [tokens, inputs]: writes gradX, adds to the gradients of weights and biases. */
export function linearBackward(
  products: Products,
  layers: readonly LayerGradient[],
  x: Float32Array,
  gradX: Float32Array,
  tokens: number,
): void {
  if (layers.some(({ layer }) => layer.weight.training !== null)) {
    const turnedX = products.packTransposed(x, tokens, layers[0].layer.inputs);
    for (const { layer, gradOut } of layers) {
      const { training } = layer.weight;
      if (training === null) continue;
      products.addOuter(gradOut, layer.features, turnedX, training.gradient);
      if (layer.bias !== null) addColumnSums(gradOut, tokens, layer.bias);
    }
    turnedX.dispose();
  }
  layers.forEach(({ layer, gradOut }, i) => {
    layer.gradInput(gradOut, gradX, tokens, i === 0 ? 'write' : 'add');
  });
}

/** Sums in f64, tokens in ascending order. */
function addColumnSums(gradOut: Float32Array, tokens: number, { training }: Parameter): void {
  const { gradient } = training!;
  const features = gradient.length;
  const sums = Float64Array.from(gradient);
  for (let t = 0; t < tokens; t++) {
    for (let n = 0; n < features; n++) sums[n] += gradOut[t * features + n];
  }
  gradient.set(sums);
}
