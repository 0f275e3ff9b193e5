/** The layers of this folder in float64 loops over the oracle, sharing no code with the package. */
import {
  attentionOracle,
  linearOracle,
  rmsNormOracle,
  swigluOracle,
  type OracleAttention,
} from '../../oracle';
import type { Numbers } from '../../support/numbers';

export interface Turn {
  headDim: number;
  rotaryDim: number;
  theta: number;
  interleaved: boolean;
  /** Divides every angle. */
  slowed?: number;
}

/** x [tokens, heads, headDim] with pair r of each head, as a complex number, times e^(i p theta^(-2r/rotaryDim)). */
export function rotated(x: Numbers, heads: number, turn: Turn, start: number): number[] {
  const y = Array.from(x);
  const pairs = turn.rotaryDim / 2;
  for (let row = 0; row < x.length / turn.headDim; row++) {
    const position = start + Math.floor(row / heads);
    for (let r = 0; r < pairs; r++) {
      const re = row * turn.headDim + (turn.interleaved ? 2 * r : r);
      const im = turn.interleaved ? re + 1 : re + pairs;
      const angle = position / turn.theta ** (r / pairs) / (turn.slowed ?? 1);
      y[re] = x[re] * Math.cos(angle) - x[im] * Math.sin(angle);
      y[im] = x[re] * Math.sin(angle) + x[im] * Math.cos(angle);
    }
  }
  return y;
}

export interface NaiveAttention {
  heads: number;
  kvHeads: number;
  headDim: number;
  weights: Record<'query' | 'key' | 'value' | 'output', Numbers>;
  biases?: Record<'query' | 'key' | 'value' | 'output', Numbers>;
  turn?: Turn;
}

type Features = Pick<OracleAttention, 'causal' | 'window' | 'sinkTokens' | 'mask' | 'dropout'>;

/** q [batch, Tq, dModel], k and v [batch, Tk, dModel] -> [batch, Tq, dModel]. */
export function naiveAttention(
  m: NaiveAttention,
  inputs: { batch: number; q: Numbers; k: Numbers; v: Numbers },
  features: Features = {},
): number[] {
  const { heads, kvHeads, headDim } = m;
  const dModel = m.weights.output.length / (heads * headDim);
  const tokens = (x: Numbers) => x.length / dModel / inputs.batch;
  const project = (x: Numbers, name: keyof NaiveAttention['weights'], rows: number) =>
    linearOracle(x, m.weights[name], m.biases?.[name] ?? null, rows, m.weights[name].length / rows);
  const turned = (x: number[], count: number, start: number) => {
    if (m.turn === undefined) return x;
    const size = x.length / inputs.batch;
    return Array.from({ length: inputs.batch }, (_, b) =>
      rotated(x.slice(b * size, (b + 1) * size), count, m.turn!, start),
    ).flat();
  };
  const [queryTokens, keyTokens] = [tokens(inputs.q), tokens(inputs.k)];
  const { out } = attentionOracle({
    q: turned(project(inputs.q, 'query', heads * headDim), heads, keyTokens - queryTokens),
    k: turned(project(inputs.k, 'key', kvHeads * headDim), kvHeads, 0),
    v: project(inputs.v, 'value', kvHeads * headDim),
    batch: inputs.batch,
    queryTokens,
    keyTokens,
    heads,
    kvHeads,
    headDim,
    valueDim: headDim,
    ...features,
  });
  return project(out, 'output', dModel);
}

export interface NaiveLlama {
  hidden: number;
  eps: number;
  layers: (NaiveAttention & {
    attentionNorm: Numbers;
    mlpNorm: Numbers;
    mlp: Record<'gate' | 'up' | 'down', { weight: Numbers; bias: Numbers | null }>;
  })[];
  embedding: Numbers;
  norm: Numbers;
  head: Numbers;
}

/** Logits [ids, vocab] of every token. */
export function naiveLlama(m: NaiveLlama, ids: number[], features: Features = {}): number[] {
  const { hidden, eps } = m;
  const linear = (x: Numbers, weight: Numbers, bias: Numbers | null, columns: number) =>
    linearOracle(x, weight, bias, weight.length / columns, columns);
  let x = ids.flatMap((id) =>
    Array.from({ length: hidden }, (_, d) => m.embedding[id * hidden + d]),
  );
  const add = (y: number[]) => (x = x.map((value, i) => value + y[i]));
  for (const layer of m.layers) {
    const n = rmsNormOracle(x, layer.attentionNorm, eps);
    add(naiveAttention(layer, { batch: 1, q: n, k: n, v: n }, { causal: true, ...features }));
    const { gate, up, down } = layer.mlp;
    const inner = rmsNormOracle(x, layer.mlpNorm, eps);
    const gated = swigluOracle(
      linear(inner, gate.weight, gate.bias, hidden),
      linear(inner, up.weight, up.bias, hidden),
    );
    add(linear(gated, down.weight, down.bias, gate.weight.length / hidden));
  }
  return linear(rmsNormOracle(x, m.norm, eps), m.head, null, hidden);
}
