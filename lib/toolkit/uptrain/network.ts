/**
 * A model of the Llama family as training needs it: token ids of a batch of windows in, the loss of each next token and,
 * where wanted, the gradients of all trained parameters out. Memory is that of one micro-batch, allocated once.
 */
import type { Backend } from '../../backend/contract';
import type { ModelConfig } from '../../model/types';
import { BlockActivations, BlockScratch, TrainedBlock, type Span } from './block';
import { OutputHead, type LossOptions, type LossSums } from './output-head';
import { Products } from './products';
import type { Parameter, Parameters } from './parameters';
import { Rotation } from './rotation';

/** The most that a network is made for. */
export interface NetworkSizes {
  /** Tokens of a micro-batch. */
  tokens: number;
  /** Tokens of its longest window. */
  window: number;
}

export class Network {
  readonly head: OutputHead;
  private readonly products: Products;
  private readonly embedding: Parameter;
  private readonly blocks: TrainedBlock[];
  /** Of each block; without a backward pass all share one. */
  private readonly kept: BlockActivations[];
  private readonly scratch: BlockScratch;
  /** The last block's output. */
  private readonly hidden: Float32Array;
  private readonly gradient: Float32Array;

  constructor(
    backend: Backend,
    private readonly config: ModelConfig,
    parameters: Parameters,
    sizes: NetworkSizes,
  ) {
    const { layers, hiddenSize } = config;
    const { tokens } = sizes;
    const trains = [...parameters.values()].some(({ training }) => training !== null);
    this.products = new Products(backend);
    const rotation = new Rotation(backend, config, sizes.window);
    this.embedding = parameters.get('model.embed_tokens.weight')!;
    this.blocks = Array.from(
      { length: layers },
      (_, layer) => new TrainedBlock(config, layer, parameters, this.products, rotation),
    );
    const shared = new BlockActivations(config, tokens);
    this.kept = this.blocks.map((_, layer) =>
      trains && layer > 0 ? new BlockActivations(config, tokens) : shared,
    );
    this.scratch = new BlockScratch(config, tokens, trains);
    this.hidden = new Float32Array(tokens * hiddenSize);
    this.gradient = new Float32Array(trains ? tokens * hiddenSize : 0);
    this.head = new OutputHead(this.products, config, parameters, tokens);
  }

  /** Hidden states [tokens, hiddenSize] before the final norm; kept until the next call. */
  forward(ids: Int32Array, span: Span): Float32Array {
    this.embed(ids, this.kept[0].x);
    this.blocks.forEach((block, layer) => {
      const next = this.kept[layer + 1]?.x ?? this.hidden;
      // Without a backward pass input and output are the same memory, which a block allows.
      block.forward(this.kept[layer], this.scratch, next, span);
    });
    return this.hidden;
  }

  /** Losses of the next tokens alone. */
  evaluate(ids: Int32Array, span: Span, options: LossOptions): LossSums {
    return this.head.losses(this.forward(ids, span), ids.length, options, null);
  }

  /** The same, and the gradients of options.weight times their sum, added to those of the trained parameters. */
  accumulate(ids: Int32Array, span: Span, options: LossOptions): LossSums {
    const { gradient } = this;
    gradient.fill(0);
    const sums = this.head.losses(this.forward(ids, span), ids.length, options, gradient);
    for (let layer = this.blocks.length - 1; layer >= 0; layer--) {
      this.blocks[layer].backward(this.kept[layer], this.scratch, gradient, span);
    }
    this.embedBackward(ids, gradient);
    return sums;
  }

  private embed(ids: Int32Array, x: Float32Array): void {
    const { hiddenSize } = this.config;
    ids.forEach((id, t) => {
      const row = this.embedding.weight.subarray(id * hiddenSize, (id + 1) * hiddenSize);
      x.set(row, t * hiddenSize);
    });
  }

  /** Each token's gradient to the row that it took, tokens in ascending order. */
  private embedBackward(ids: Int32Array, gradX: Float32Array): void {
    const gradient = this.embedding.training?.gradient;
    if (gradient === undefined) return;
    const { hiddenSize } = this.config;
    ids.forEach((id, t) => {
      const row = id * hiddenSize;
      for (let d = 0; d < hiddenSize; d++) gradient[row + d] += gradX[t * hiddenSize + d];
    });
  }

  /** After a step: what is packed of trained weights is made anew. */
  refresh(): void {
    for (const block of this.blocks) block.refresh();
    this.head.refresh();
  }

  dispose(): void {
    for (const block of this.blocks) block.dispose();
    this.head.dispose();
  }
}
