/** What the planner needs to know of a decoder: sizes alone, whatever its architecture. */
export interface ModelShape {
  name: string;
  /** `model_type` of its config.json. */
  architecture: string;
  vocabSize: number;
  hiddenSize: number;
  layers: number;
  heads: number;
  /** Read, never derived where the architecture states it: heads * headDim need not be hiddenSize. */
  headDim: number;
  /** Each layer's number of KV heads. */
  layerKvHeads: readonly number[];
  /** Keys that a query of each layer sees, itself included; Infinity for all. */
  layerWindows: readonly number[];
  ffn: {
    /** Two projections up, one of them through the activation, and one down; else one up and one down. */
    gated: boolean;
    width: number;
    /** Of a mixture of experts: how many there are, and how many a token goes through. */
    experts: { count: number; active: number } | null;
  };
  /** The output head is the embedding. */
  tiedEmbeddings: boolean;
  /** Rows of learned position embeddings; 0 with RoPE. */
  learnedPositions: number;
  bias: { qkv: boolean; output: boolean; ffn: boolean; router: boolean };
  /** Vectors of hiddenSize: per layer, and one behind the last; `perHead`: one for queries and one for keys, of headDim. */
  norms: { perLayer: number; bias: boolean; perHead: boolean };
  /** A learned logit per query head that joins the softmax. */
  sinkLogits: boolean;
  /** Tokens that it was made for. */
  contextLength: number;
}

/** The largest number of KV heads that a layer has. */
export function mostKvHeads({ layerKvHeads }: ModelShape): number {
  return Math.max(...layerKvHeads);
}

/** The same model with so many KV heads in every layer. */
export function withKvHeads(shape: ModelShape, kvHeads: number): ModelShape {
  return { ...shape, layerKvHeads: new Array<number>(shape.layers).fill(kvHeads) };
}

/** A layer of each kind alone, and how many of each there are: sums over them are sums over all layers. */
export function layerKinds(shape: ModelShape): { kinds: ModelShape; counts: readonly number[] } {
  const seen = new Map<string, { layer: number; count: number }>();
  for (let layer = 0; layer < shape.layers; layer++) {
    const key = `${shape.layerKvHeads[layer]} ${shape.layerWindows[layer]}`;
    const kind = seen.get(key) ?? { layer, count: 0 };
    kind.count++;
    seen.set(key, kind);
  }
  const kinds = [...seen.values()];
  return {
    kinds: {
      ...shape,
      layers: kinds.length,
      layerKvHeads: kinds.map(({ layer }) => shape.layerKvHeads[layer]),
      layerWindows: kinds.map(({ layer }) => shape.layerWindows[layer]),
    },
    counts: kinds.map(({ count }) => count),
  };
}
