/**
 * Grouped-query attention of a decoder over the KV cache, its projections fused where they can be:
 *   out += outputNorm(output(attention(rope(queryNorm(query(n))), cache(rope(keyNorm(key(n))), value(n))))),  n = norm(x)
 * Whatever is null is left out.
 */
import type { AttentionStats } from '../core/attention-stats';
import type { LayerShape, StepFeatures } from '../kv-cache/kv-cache';
import { FusedLinear, type Norm } from './fused-linear';
import type { Linear } from './linear';
import type { Rope } from './rope';
import { addProjection, type Sublayer, type Tokens } from './sublayer';

export interface AttentionParts {
  headDim: number;
  norm: Norm | null;
  query: Linear;
  key: Linear;
  value: Linear;
  output: Linear;
  /** Of each head, [headDim]. */
  queryNorm?: Norm | null;
  keyNorm?: Norm | null;
  outputNorm?: Norm | null;
  /** Null for models that know positions otherwise. */
  rope: Rope | null;
  /** Keys that a query sees, itself included; of this layer. */
  window?: number | null;
  /** scale, softcap, alibiSlopes, sinkLogits */
  features?: StepFeatures;
}

export class AttentionLayer implements Sublayer {
  readonly heads: number;
  readonly kvHeads: number;
  private readonly project: FusedLinear;
  private readonly output: FusedLinear;
  private readonly features: StepFeatures;

  constructor(private readonly parts: AttentionParts) {
    const { query, key, value, output, outputNorm, norm, headDim } = parts;
    this.heads = query.outFeatures / headDim;
    this.kvHeads = key.outFeatures / headDim;
    this.project = new FusedLinear(norm, [query, key, value], 'write');
    this.output = new FusedLinear(null, [output], outputNorm ? 'write' : 'add');
    this.features = { ...parts.features };
  }

  get bytes(): number {
    const { norm, query, key, value, output, queryNorm, keyNorm, outputNorm } = this.parts;
    const held = [norm, query, key, value, output, queryNorm, keyNorm, outputNorm];
    return held.reduce((sum, part) => sum + (part?.bytes ?? 0), 0);
  }

  /** What the cache must keep of this layer. */
  get cacheShape(): LayerShape {
    const { headDim, window } = this.parts;
    const shape = { kvHeads: this.kvHeads, headDim };
    return window ? { ...shape, window } : shape;
  }

  /** @throws GqaError BUFFER_TOO_SMALL, DISPOSED; what KvStep.append and attend throw */
  addTo(
    out: Float32Array,
    x: Float32Array,
    tokens: Tokens,
    layer: number,
    stats?: AttentionStats,
  ): void {
    const { rows, step, scratch } = tokens;
    const { headDim, rope, queryNorm, keyNorm, outputNorm } = this.parts;
    const { heads, kvHeads, features } = this;
    scratch.checkTokens(rows);
    const query = scratch.heads('query', rows, heads, headDim);
    const key = scratch.heads('key', rows, kvHeads, headDim);
    const value = scratch.heads('value', rows, kvHeads, headDim);
    const context = scratch.heads('context', rows, heads, headDim);

    this.project.run(x, rows, [query.data, key.data, value.data], scratch);
    queryNorm?.apply(query.data, query.data, rows * heads);
    keyNorm?.apply(key.data, key.data, rows * kvHeads);
    // A cache that counts positions itself turns queries and keys itself.
    if (rope !== null && step.cache.positions === 'absolute') {
      rope.applyAt(query.data, heads, step.positions);
      rope.applyAt(key.data, kvHeads, step.positions);
    }
    step.append(layer, key, value);
    features.precision = scratch.precision;
    features.stats = stats;
    step.attend(layer, query, context, features);
    addProjection(this.output, outputNorm ?? null, context.data, out, tokens);
  }

  dispose(): void {
    const { query, key, value, output } = this.parts;
    for (const linear of [query, key, value, output]) linear.dispose();
  }
}
