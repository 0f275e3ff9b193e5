/** Decoder blocks over a KV cache: attention and an MLP, each with its norms, one after the other or beside each other. */
import type { AttentionStats } from '../core/attention-stats';
import type { LayerShape } from '../kv-cache/kv-cache';
import type { AttentionLayer } from './attention-layer';
import { checkRoom } from './inputs';
import type { Sublayer, Tokens } from './sublayer';

/** Takes the residual stream x [rows, hiddenSize] through one layer, in place. */
export interface Block {
  /** What the cache must keep of it. */
  readonly cacheShape: LayerShape;
  readonly bytes: number;
  /** @throws GqaError BUFFER_TOO_SMALL, DISPOSED; what KvStep.append and attend throw */
  forward(x: Float32Array, tokens: Tokens, layer: number, stats?: AttentionStats): void;
  dispose(): void;
}

abstract class TwoSublayers implements Block {
  constructor(
    protected readonly hiddenSize: number,
    protected readonly attention: AttentionLayer,
    protected readonly mlp: Sublayer,
  ) {}

  get cacheShape(): LayerShape {
    return this.attention.cacheShape;
  }

  get bytes(): number {
    return this.attention.bytes + this.mlp.bytes;
  }

  abstract forward(x: Float32Array, tokens: Tokens, layer: number, stats?: AttentionStats): void;

  dispose(): void {
    this.attention.dispose();
    this.mlp.dispose();
  }
}

/** x += attention(x); x += mlp(x) */
export class TransformerBlock extends TwoSublayers {
  forward(x: Float32Array, tokens: Tokens, layer: number, stats?: AttentionStats): void {
    checkRoom('x', x.length, tokens.rows * this.hiddenSize);
    this.attention.addTo(x, x, tokens, layer, stats);
    this.mlp.addTo(x, x, tokens, layer);
  }
}

/** x += attention(x) + mlp(x), both of the same x (GPT-J, GPT-NeoX, Falcon). */
export class ParallelBlock extends TwoSublayers {
  forward(x: Float32Array, tokens: Tokens, layer: number, stats?: AttentionStats): void {
    const count = tokens.rows * this.hiddenSize;
    checkRoom('x', x.length, count);
    const sum = tokens.scratch.rows('sum', this.hiddenSize);
    sum.set(x.subarray(0, count));
    this.attention.addTo(sum, x, tokens, layer, stats);
    this.mlp.addTo(sum, x, tokens, layer);
    x.set(sum.subarray(0, count));
  }
}
