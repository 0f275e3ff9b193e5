/**
 * Parameters of a model, part by part. With hidden size d, Hq query and Hkv KV heads of D, FFN width f and E experts, a
 * layer has Q d Hq D, K and V d Hkv D each, O Hq D d, an FFN of 3 d f (gated) or 2 d f for each expert and d E to choose
 * among them, beside norms and biases.
 */
import { withKvHeads, type ModelShape } from './shape';

export interface ParameterCounts {
  embedding: number;
  /** Learned positions. */
  positions: number;
  query: number;
  key: number;
  value: number;
  output: number;
  /** Sink logits. */
  sinks: number;
  /** All experts. */
  ffn: number;
  router: number;
  norms: number;
  /** 0 where it is the embedding. */
  head: number;
  total: number;
  /** All but the experts that a token does not go through. */
  active: number;
}

/** Query, key, value and output projections of one layer, biases included. */
export function attentionParameters(shape: ModelShape, kvHeads: number) {
  const { hiddenSize, heads, headDim, bias } = shape;
  const inputs = hiddenSize + (bias.qkv ? 1 : 0);
  return {
    query: inputs * heads * headDim,
    key: inputs * kvHeads * headDim,
    value: inputs * kvHeads * headDim,
    output: heads * headDim * hiddenSize + (bias.output ? hiddenSize : 0),
  };
}

/** Of one FFN, or of one expert. */
export function ffnParameters({ hiddenSize, ffn, bias }: ModelShape): number {
  const up = ffn.gated ? 2 : 1;
  const biases = bias.ffn ? up * ffn.width + hiddenSize : 0;
  return (up + 1) * hiddenSize * ffn.width + biases;
}

function normParameters({ hiddenSize, headDim, layers, norms }: ModelShape): number {
  const vector = hiddenSize * (norms.bias ? 2 : 1);
  const perHead = norms.perHead ? 2 * headDim : 0;
  return layers * (norms.perLayer * vector + perHead) + vector;
}

export function countParameters(shape: ModelShape): ParameterCounts {
  const { vocabSize, hiddenSize, layers, heads, ffn, bias, layerKvHeads } = shape;
  const attention = layerKvHeads.map((kvHeads) => attentionParameters(shape, kvHeads));
  const sum = (part: 'query' | 'key' | 'value' | 'output'): number =>
    attention.reduce((total, layer) => total + layer[part], 0);
  const expert = ffnParameters(shape);
  const { count, active } = ffn.experts ?? { count: 1, active: 1 };
  const routerInputs = hiddenSize + (bias.router ? 1 : 0);
  const parts = {
    embedding: vocabSize * hiddenSize,
    positions: shape.learnedPositions * hiddenSize,
    query: sum('query'),
    key: sum('key'),
    value: sum('value'),
    output: sum('output'),
    sinks: shape.sinkLogits ? layers * heads : 0,
    ffn: layers * count * expert,
    router: ffn.experts === null ? 0 : layers * count * routerInputs,
    norms: normParameters(shape),
    head: shape.tiedEmbeddings ? 0 : vocabSize * hiddenSize,
  };
  const total = Object.values(parts).reduce((a, b) => a + b, 0);
  return { ...parts, total, active: total - layers * (count - active) * expert };
}

/**
 * Parameters that a step of `batch` tokens reads: all but the embedding, of which it takes a row a token where that is
 * not the head too. Of E experts, k for each token, it meets E (1 - (1 - k / E)^batch) where tokens choose evenly.
 */
export function parametersRead(shape: ModelShape, batch: number): number {
  const counts = countParameters(shape);
  const { experts } = shape.ffn;
  const rows = Math.min(batch, shape.vocabSize) * shape.hiddenSize;
  const gathered = shape.tiedEmbeddings ? 0 : counts.embedding - rows;
  const positions = Math.max(0, counts.positions - batch * shape.hiddenSize);
  if (experts === null) return counts.total - gathered - positions;
  const missed = experts.count * (1 - experts.active / experts.count) ** batch;
  return counts.total - gathered - positions - shape.layers * missed * ffnParameters(shape);
}

/** What fewer KV heads buy elsewhere, so that a layer has as many parameters as with one KV head per query head. */
export interface BuyBack {
  /** Parameters of a layer that multi-head attention has more. */
  savedPerLayer: number;
  /** FFN width that restores them. */
  ffnWidth: number;
  /** Hidden size that restores them, its heads of the same dim, its FFN as much wider; and heads, rounded up. */
  hiddenSize: number;
  heads: number;
}

/**
 * With q = Hq D / d and m the FFN's parameters over d^2, a layer of hidden size x has (2 q + m) x^2 + 2 Hkv D x
 * parameters, and x is the positive root of that minus the multi-head layer's (2 q + m) d^2 + 2 Hq D d. Biases, norms
 * and routers are left out.
 */
export function buyBack(shape: ModelShape, kvHeads: number): BuyBack {
  const { hiddenSize: d, heads, headDim, ffn } = shape;
  const projections = ffn.gated ? 3 : 2;
  const experts = ffn.experts?.count ?? 1;
  const savedPerLayer = 2 * d * (heads - kvHeads) * headDim;
  const square = (2 * heads * headDim) / d + (projections * experts * ffn.width) / d;
  const linear = 2 * kvHeads * headDim;
  const target = square * d * d + 2 * heads * headDim * d;
  const hiddenSize = (Math.sqrt(linear * linear + 4 * square * target) - linear) / (2 * square);
  return {
    savedPerLayer,
    ffnWidth: ffn.width + savedPerLayer / (projections * experts * d),
    hiddenSize,
    heads: Math.ceil((hiddenSize * heads) / d - 1e-9),
  };
}

/** Of the model with so many KV heads in every layer, and of it as it is. */
export function parametersWith(shape: ModelShape, kvHeads: number): number {
  const same = shape.layerKvHeads.every((count) => count === kvHeads);
  return countParameters(same ? shape : withKvHeads(shape, kvHeads)).total;
}
