/**
 * One call of attention, from what the caller gives to what a backend takes. Everything is checked in `fill`; nothing is
 * written before. Synchronous calls reuse one object, so that a decode call allocates nothing but its result.
 */
import { getBackend } from '../backend';
import type { AttendArgs, Broadcast, TensorSource } from '../backend/contract';
import { AttentionStats, writeEmptyStats } from '../core/attention-stats';
import type { FloatDType } from '../core/dtype';
import { Tensor } from '../core/tensor';
import { checkFixedLength, checkRank, requireFloatTensor } from '../core/validate';
import { KvLayer } from '../kv-cache/layer';
import type { KeyRotation } from '../kv-cache/options';
import { turnQueries } from '../kv-cache/positions';
import { fillFeatures, fillOut, fillPlanes } from './features';
import { OptionValues } from './options';
import type { AttentionWithLse } from './options';
import { fillFromLayer, fillFromTensors } from './sources';

const NO_DATA = new Float32Array(0);
const NO_MASK = new Uint8Array(0);

export class AttentionCall {
  readonly options = new OptionValues();
  readonly tensors: TensorSource = { type: 'tensor', k: NO_DATA, v: NO_DATA, dtype: 'f32' };
  readonly mask: Broadcast<Uint8Array> = { data: NO_MASK, batchStride: 0, headStride: 0 };
  readonly bias: Broadcast<Float32Array> = { data: NO_DATA, batchStride: 0, headStride: 0 };
  readonly args: AttendArgs = {
    q: NO_DATA,
    sinkQ: null,
    qDtype: 'f32',
    out: NO_DATA,
    outDtype: 'f32',
    lse: null,
    batch: 0,
    queryTokens: 0,
    keyTokens: 0,
    heads: 0,
    kvHeads: 0,
    headDim: 0,
    valueDim: 0,
    kv: this.tensors,
    causal: false,
    window: Infinity,
    sinkTokens: 0,
    scale: 1,
    softcap: 0,
    mask: null,
    bias: null,
    alibiSlopes: null,
    sinkLogits: null,
    dropout: null,
    precision: 'exact',
    stats: null,
  };
  /** As given, checked. */
  stats: AttentionStats | null = null;
  /** Turned queries; grown when needed. */
  private turned = NO_DATA;
  private sinkTurned: Float32Array = NO_DATA;
  private out: Tensor<FloatDType> | null = null;
  private lse: Tensor<'f32'> | null = null;

  /**
   * Checks a call over (q, k, v, options) or (q, layer, options) and prepares everything but the backend's work.
   *
   * @throws GqaError
   */
  fill(query: unknown, key: unknown, third: unknown, fourth: unknown): void {
    const layer = key instanceof KvLayer ? key : null;
    this.options.read(layer === null ? fourth : third);
    const q = requireFloatTensor(query, 'q');
    checkRank(q, 4, 'q', '[batch, tokens, heads, headDim]');
    const { args } = this;
    args.q = q.storage.data;
    args.qDtype = q.dtype;
    args.batch = q.shape[0];
    args.queryTokens = q.shape[1];
    args.heads = q.shape[2];
    args.headDim = q.shape[3];
    if (layer !== null) {
      fillFromLayer(this, q, layer);
      fillFeatures(this);
      fillPlanes(this);
      this.out = fillOut(this, q, null, null);
      if (layer.storage.rope !== null) this.turnQueries(layer.storage.rope);
    } else {
      const k = requireFloatTensor(key, 'k');
      const v = requireFloatTensor(third, 'v');
      fillFromTensors(this, q, k, v);
      fillFeatures(this);
      fillPlanes(this);
      this.out = fillOut(this, q, k, v);
    }
    this.makeResult(q.dtype);
  }

  /** Over a cache that counts positions itself: q is replaced by copies, turned. */
  private turnQueries(rope: KeyRotation): void {
    const { args } = this;
    const { queryTokens: tokens, heads, keyTokens, window, sinkTokens } = args;
    const count = tokens * heads * args.headDim;
    if (this.turned.length < count) this.turned = new Float32Array(count);
    const { turned: q } = this;
    getBackend().convert({ from: args.q, fromDtype: args.qDtype, to: q, toDtype: 'f32', count });
    const positionOf = (row: number): number => row + keyTokens - tokens;
    const queries = { rope, q, tokens, heads, window, sinkTokens, positionOf };
    args.q = q;
    args.qDtype = 'f32';
    args.sinkQ = turnQueries(queries, this.sinkTurned);
    if (args.sinkQ !== null) this.sinkTurned = args.sinkQ;
  }

  /** What the caller did not give: the output, and the LSE if asked for; room for statistics. */
  private makeResult(dtype: FloatDType): void {
    const { args } = this;
    const { batch, queryTokens, heads, valueDim } = args;
    this.out ??= Tensor.zeros([batch, queryTokens, heads, valueDim], dtype);
    args.out = this.out.storage.data;
    args.outDtype = this.out.dtype;
    args.stats = this.stats === null ? null : this.stats.fit(batch, queryTokens, heads);
    if (!this.options.returnLse) return;
    this.lse = Tensor.zeros([batch, queryTokens, heads], 'f32');
    args.lse = this.lse.storage.data;
  }

  /**
   * True where there are no keys, no rows or no batch: the result is then zeros with LSE -Infinity, written here.
   * A backend never sees such a call.
   */
  finishEmpty(): boolean {
    const { args } = this;
    if (args.batch > 0 && args.queryTokens > 0 && args.keyTokens > 0) return false;
    args.out.fill(0);
    args.lse?.fill(-Infinity);
    if (args.stats !== null) {
      writeEmptyStats(args.stats, args.batch * args.queryTokens * args.heads);
    }
    return true;
  }

  result(): Tensor<FloatDType> | AttentionWithLse {
    const { out, lse } = this;
    return lse === null ? out! : { out: out!, lse };
  }

  /** Lets go of all memory: a reused object keeps no tensor alive. */
  clear(): void {
    const { args, tensors } = this;
    this.options.clear();
    tensors.k = NO_DATA;
    tensors.v = NO_DATA;
    this.mask.data = NO_MASK;
    this.bias.data = NO_DATA;
    args.q = NO_DATA;
    args.sinkQ = null;
    args.out = NO_DATA;
    args.lse = null;
    args.kv = tensors;
    args.mask = null;
    args.bias = null;
    args.alibiSlopes = null;
    args.sinkLogits = null;
    args.stats = null;
    this.stats = null;
    this.out = null;
    this.lse = null;
  }
}

/** What an async call keeps busy until it has settled. */
export interface Holdable {
  hold(): void;
  release(): void;
}

/**
 * Every tensor and cache that a call reads or writes, as the caller gave them; `fill` has checked them.
 *
 * @throws GqaError INVALID_ARGUMENT where a tensor's memory could shrink meanwhile.
 */
export function holdablesOf(call: AttentionCall, q: unknown, k: unknown, v: unknown): Holdable[] {
  const { mask, bias, alibiSlopes, sinkLogits, out, stats } = call.options;
  const given = { q, k, v };
  const options = { mask, bias, alibiSlopes, sinkLogits, out, stats };
  const held: Holdable[] = [];
  for (const [name, handle] of Object.entries(given)) hold(handle, name, held);
  for (const [name, handle] of Object.entries(options)) hold(handle, `options.${name}`, held);
  return held;
}

function hold(handle: unknown, argument: string, held: Holdable[]): void {
  if (handle instanceof KvLayer) {
    held.push(handle.sequence.cache);
  } else if (handle instanceof AttentionStats) {
    held.push(handle.memory);
  } else if (handle instanceof Tensor) {
    checkFixedLength(handle as Tensor, argument);
    held.push(handle.storage);
  }
}
