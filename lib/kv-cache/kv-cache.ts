/**
 * A preallocated KV cache: one arena of token blocks per layer, shared by a fixed number of sequences. With a window each
 * sequence is a ring over its blocks; nothing is moved, copied or allocated after construction.
 */
import { getBackend } from '../backend';
import type { Arena, ArenaLayout, Backend } from '../backend/contract';
import { CACHE_DTYPES, cacheRowBytes, isCacheDType } from '../core/dtype';
import type { CacheDType } from '../core/dtype';
import { expectedError } from '../core/errors';
import { DISPOSED, IDLE } from '../core/storage';
import { disposeSymbol } from '../core/tensor';
import { allocate, checkedProduct, describe, requireInteger } from '../core/validate';
import { MAX_HEAD_DIM, requireOptions, requireWindow, stateError } from '../core/validate';
import { BlockPool } from './block-pool';
import { planRing } from './ring';
import type { RingGeometry } from './ring';
import { KvSequence } from './sequence';

export { KvLayer } from './layer';
export { KvSequence } from './sequence';

export interface KvCacheOptions {
  layers: number;
  kvHeads: number;
  headDim: number;
  /** Tokens per sequence. */
  capacity: number;
  /**
   * How keys and values are stored; default 'f32'. 'q8' and 'q4' round each token's row in groups of 32 dims to 8.5 and
   * 5 bits a value (docs/numerics.md).
   */
  dtype?: CacheDType;
  /** Size of a value's head where it differs from headDim. */
  valueDim?: number;
  /** Keys that a query sees, itself included; without it a sequence ends at `capacity`. */
  window?: number;
  /** First positions that stay visible whatever the window; default 0. */
  sinkTokens?: number;
  /** Tokens that can still be rolled back once the window moves; default capacity - sinkTokens - window. */
  slack?: number;
  /** Sequences that can live at once; default 1. */
  sequences?: number;
}

/** Block ids are 32 bits, in native/ops.h too. */
const MAX_BLOCKS = 2 ** 31 - 1;
/** Far beyond any model; each layer costs a few objects however small its storage. */
const MAX_LAYERS = 2 ** 16;

export class KvCache {
  readonly layers: number;
  readonly kvHeads: number;
  readonly headDim: number;
  readonly valueDim: number;
  readonly capacity: number;
  readonly dtype: CacheDType;
  /** Infinity for none. */
  readonly window: number;
  readonly sinkTokens: number;
  /** Without a window any rollback is possible, and slack is the capacity. */
  readonly slack: number;
  readonly sequences: number;

  /** @internal DISPOSED, IDLE, or the number of async calls that read it. */
  state = IDLE;
  /** @internal */
  readonly backend: Backend;
  /** @internal One per layer. */
  readonly arenas: Arena[];
  /** @internal */
  readonly geometry: RingGeometry;
  /** @internal */
  readonly pool: BlockPool;
  private readonly live = new Set<KvSequence>();

  /**
   * Allocates the whole cache, zeroed.
   *
   * @throws GqaError INVALID_ARGUMENT, INVALID_DTYPE, NON_FINITE, OUT_OF_RANGE (a number outside its range, capacity
   *   below sinkTokens + window + slack, a size beyond what can be addressed), OUT_OF_MEMORY.
   */
  constructor(options: KvCacheOptions) {
    requireOptions(options, 'options');
    this.layers = requireInteger(options.layers, 'options.layers', 1, MAX_LAYERS);
    this.kvHeads = requireInteger(options.kvHeads, 'options.kvHeads', 1);
    this.headDim = requireInteger(options.headDim, 'options.headDim', 1, MAX_HEAD_DIM);
    this.valueDim = requireInteger(
      options.valueDim ?? this.headDim,
      'options.valueDim',
      1,
      MAX_HEAD_DIM,
    );
    this.capacity = requireInteger(options.capacity, 'options.capacity', 1);
    this.dtype = requireCacheDType(options.dtype ?? 'f32');
    this.window = requireWindow(options.window ?? Infinity, 'options.window');
    this.sinkTokens = requireInteger(options.sinkTokens ?? 0, 'options.sinkTokens', 0);
    this.sequences = requireInteger(options.sequences ?? 1, 'options.sequences', 1);
    this.slack = requireSlack(options.slack, this.capacity, this.window, this.sinkTokens);
    this.geometry = planRing(this.layers, this.capacity, this.window, this.sinkTokens, this.slack);
    const layout = this.planArena();
    this.backend = getBackend();
    this.pool = new BlockPool(layout.blocks);
    this.arenas = createArenas(this.backend, layout, this.layers);
  }

  /** Sizes every layer's arena, and checks that each of them and their sum can be addressed. */
  private planArena(): ArenaLayout {
    const { blockTokens, sinkBlocks, ringBlocks } = this.geometry;
    const blocks = this.sequences * (sinkBlocks + ringBlocks);
    const { kvHeads, headDim, valueDim, dtype } = this;
    const bytes = cacheRowBytes(dtype, headDim) + cacheRowBytes(dtype, valueDim);
    checkedProduct([this.layers, kvHeads, blocks, blockTokens, bytes], 'options.capacity');
    if (blocks > MAX_BLOCKS) {
      const expected = `at most ${MAX_BLOCKS} blocks of ${blockTokens} tokens`;
      throw expectedError('OUT_OF_RANGE', 'options.capacity', expected, `${blocks} blocks`);
    }
    const rotated = { rotateKeys: false, rotateValues: false };
    const dtypes = { keyDtype: dtype, valueDtype: dtype };
    return { kvHeads, headDim, valueDim, ...dtypes, ...rotated, blockTokens, blocks };
  }

  /** Bytes of storage held, all layers; 0 after dispose. */
  get bytes(): number {
    let bytes = 0;
    for (const arena of this.arenas) bytes += arena.bytes;
    return this.state === DISPOSED ? 0 : bytes;
  }

  /** A new, empty sequence. @throws GqaError CAPACITY_EXCEEDED (all are in use), OUT_OF_MEMORY, DISPOSED, BUSY. */
  sequence(): KvSequence {
    this.checkUsable();
    if (this.live.size === this.sequences) {
      const expected = `at most ${this.sequences} live sequences`;
      throw expectedError('CAPACITY_EXCEEDED', 'cache', expected, 'one more');
    }
    const slots = this.geometry.sinkBlocks + this.geometry.ringBlocks;
    const sequence = allocate(() => new KvSequence(this), slots * 4, 'cache');
    this.live.add(sequence);
    return sequence;
  }

  /** Frees the storage and disposes every sequence; a second call does nothing. @throws GqaError BUSY. */
  dispose(): void {
    if (this.state === DISPOSED) return;
    this.checkUsable();
    for (const sequence of [...this.live]) sequence.dispose();
    this.state = DISPOSED;
    for (const arena of this.arenas) arena.dispose();
  }

  [disposeSymbol](): void {
    this.dispose();
  }

  /** @internal A sequence has been disposed. */
  forget(sequence: KvSequence): void {
    this.live.delete(sequence);
  }

  /** @internal An async call begins to read the cache; it calls release() when it has settled. */
  hold(): void {
    this.state++;
  }

  /** @internal */
  release(): void {
    this.state--;
  }

  private checkUsable(): void {
    if (this.state !== IDLE) throw stateError(this.state, 'cache', 'cache');
  }
}

function requireCacheDType(dtype: unknown): CacheDType {
  if (isCacheDType(dtype)) return dtype;
  const expected = `one of ${CACHE_DTYPES.join(', ')}`;
  throw expectedError('INVALID_DTYPE', 'options.dtype', expected, describe(dtype));
}

function requireSlack(
  slack: unknown,
  capacity: number,
  window: number,
  sinkTokens: number,
): number {
  if (window === Infinity) {
    if (slack !== undefined) requireInteger(slack, 'options.slack', 0);
    return capacity;
  }
  const most = capacity - sinkTokens - window;
  const given = slack === undefined ? Math.max(0, most) : requireInteger(slack, 'options.slack', 0);
  if (given > most) {
    const expected = `at least sinkTokens + window + slack = ${sinkTokens + window + given}`;
    throw expectedError('OUT_OF_RANGE', 'options.capacity', expected, String(capacity));
  }
  return given;
}

/** All layers' arenas, or none. */
function createArenas(backend: Backend, layout: ArenaLayout, layers: number): Arena[] {
  const arenas: Arena[] = [];
  const { kvHeads, headDim, valueDim, blocks, blockTokens, keyDtype: dtype } = layout;
  const rowBytes = cacheRowBytes(dtype, headDim) + cacheRowBytes(dtype, valueDim);
  const bytes = kvHeads * rowBytes * blocks * blockTokens;
  try {
    for (let i = 0; i < layers; i++) {
      arenas.push(allocate(() => backend.createArena(layout), bytes, 'options.capacity'));
    }
  } catch (error) {
    for (const arena of arenas) arena.dispose();
    throw error;
  }
  return arenas;
}
