/**
 * A preallocated KV cache: an arena of token blocks per layer, shared by a fixed number of sequences. With a window each
 * sequence is a ring over its blocks; nothing is moved or allocated after construction, and copied only where sequences
 * that share a block part.
 */
import { getBackend } from '../backend';
import type { Backend } from '../backend/contract';
import type { CacheDType } from '../core/dtype';
import { expectedError } from '../core/errors';
import { DISPOSED, IDLE } from '../core/storage';
import { disposeSymbol } from '../core/tensor';
import { allocate, checkedProduct, stateError } from '../core/validate';
import { freeTokens } from './demand';
import { planRing } from './geometry';
import { LayerGroup } from './layer-group';
import type { LayerStorage } from './layer-group';
import { planBlocks, planCache } from './options';
import type { BlockRoom, CachePlan, KvCacheOptions } from './options';
import { Prefixes } from './prefixes';
import { KvSequence } from './sequence';
import { blockBytes } from './sizes';
import { loadSequenceFrom, restoreSequence, restoreSequenceFrom } from './snapshot/sequences';
import type { BlockStore } from './snapshot/store';
import { layoutDigest } from './snapshot/prefix-blocks';
import { exportBlocks, importBlocks } from './snapshot/prefix-exchange';
import { planStep, stepFits } from './step-plan';
import { KvStep } from './step';
import type { StepEntry, StepOptions } from './step';

export { KvLayer } from './layer';
export type { KeyRotation, KvCacheOptions, LayerShape } from './options';
export { KvSequence } from './sequence';
export { KvStep } from './step';
export type { StepEntry, StepFeatures, StepOptions } from './step';

export class KvCache {
  readonly layers: number;
  readonly keyDtype: CacheDType;
  readonly valueDtype: CacheDType;
  /** Whether keys and values are stored turned by a Hadamard rotation. */
  readonly rotateKeys: boolean;
  readonly rotateValues: boolean;
  readonly sequences: number;
  /** Which model keys and values come from, as the caller said. */
  readonly model: string;

  /** @internal DISPOSED, IDLE, or the number of async calls that read it. */
  state = IDLE;
  /** @internal */
  readonly backend: Backend;
  /** @internal Layers that share geometry, in the order of their first layers. */
  readonly groups: readonly LayerGroup[];
  /** @internal One per layer. */
  readonly storage: readonly LayerStorage[];
  /** @internal */
  readonly prefixes: Prefixes;
  private readonly live = new Set<KvSequence>();

  /**
   * Allocates the whole cache, zeroed.
   *
   * @throws GqaError INVALID_ARGUMENT, INVALID_DTYPE, INVALID_SHAPE (a rope of another head dim), NON_FINITE, OUT_OF_RANGE
   *   (a number outside its range, capacity below sinkTokens + window + slack, a size beyond what can be addressed),
   *   OUT_OF_MEMORY.
   */
  constructor(options: KvCacheOptions) {
    const plan = planCache(options);
    this.layers = plan.layers.length;
    this.keyDtype = plan.keyDtype;
    this.valueDtype = plan.valueDtype;
    this.rotateKeys = plan.rotateKeys;
    this.rotateValues = plan.rotateValues;
    this.sequences = plan.sequences;
    this.model = plan.model;
    this.backend = getBackend();
    const { groups, storage, blockTokens, room } = createStorage(plan, this.backend);
    this.groups = groups;
    this.storage = storage;
    this.prefixes = new Prefixes(this, blockTokens, room.prefixBlocks);
  }

  /** Who turns keys and queries by RoPE: the caller, or the cache by positions of its own. */
  get positions(): 'absolute' | 'cache' {
    return this.storage[0].rope === null ? 'absolute' : 'cache';
  }

  /** Shape of the first layer, and of all where they are alike. */
  get kvHeads(): number {
    return this.storage[0].kvHeads;
  }

  get headDim(): number {
    return this.storage[0].headDim;
  }

  get valueDim(): number {
    return this.storage[0].valueDim;
  }

  /** Token slots of a block. */
  get blockTokens(): number {
    return this.groups[0].geometry.blockTokens;
  }

  /** Tokens per sequence, of the first layer. */
  get capacity(): number {
    return this.groups[0].geometry.capacity;
  }

  /** Infinity for none; of the first layer. */
  get window(): number {
    return this.groups[0].geometry.window;
  }

  get sinkTokens(): number {
    return this.groups[0].geometry.sinkTokens;
  }

  /** Tokens that can be rolled back; without a window any rollback is possible, and slack is the capacity. */
  get slack(): number {
    return this.groups[0].geometry.slack;
  }

  /** Bytes of storage held, all layers; 0 after dispose. */
  get bytes(): number {
    let bytes = 0;
    for (const { arena, tailArena } of this.storage) bytes += arena.bytes + (tailArena?.bytes ?? 0);
    return this.state === DISPOSED ? 0 : bytes;
  }

  /** Bytes that a token's keys and values take in all layers, scales included, tails and padding not. */
  get bytesPerToken(): number {
    let bytes = 0;
    for (const { arena } of this.storage)
      bytes += blockBytes(arena.layout) / arena.layout.blockTokens;
    return bytes;
  }

  /** Bytes of the blocks that sequences and shared prefixes hold, a block that several hold counted once. */
  get usedBytes(): number {
    return this.state === DISPOSED ? 0 : this.blockBytes(({ used }) => used);
  }

  /** The most that usedBytes ever was. */
  get highWaterBytes(): number {
    return this.blockBytes(({ highWater }) => highWater);
  }

  /** Tokens of shared prefixes that lookup() can find. */
  get sharedTokens(): number {
    return this.prefixes.tokens;
  }

  private blockBytes(count: (pool: { used: number; highWater: number }) => number): number {
    let bytes = 0;
    for (const { pool, tailPool, members } of this.groups) {
      for (const { arena, tailArena } of members) {
        bytes += (arena.bytes / pool.blocks) * count(pool);
        if (tailArena !== null && tailPool !== null) {
          bytes += (tailArena.bytes / tailPool.blocks) * count(tailPool);
        }
      }
    }
    return bytes;
  }

  /** A new, empty sequence. @throws GqaError CAPACITY_EXCEEDED (all are in use), OUT_OF_MEMORY, DISPOSED, BUSY. */
  sequence(): KvSequence {
    this.checkUsable();
    if (this.live.size === this.sequences) {
      const expected = `at most ${this.sequences} live sequences`;
      throw expectedError('CAPACITY_EXCEEDED', 'cache', expected, 'one more');
    }
    const slots = this.groups.reduce((sum, { geometry }) => sum + geometry.ringBlocks, 0);
    const sequence = allocate(() => new KvSequence(this), slots * 4, 'cache');
    this.live.add(sequence);
    return sequence;
  }

  /**
   * A new sequence that begins with the longest prefix of these token ids that some sequence has shared, in whole blocks
   * of 64: its `length` says how many of them it has, and may be 0.
   *
   * @throws GqaError INVALID_ARGUMENT, CAPACITY_EXCEEDED (all sequences are in use), OUT_OF_MEMORY, DISPOSED, BUSY.
   */
  lookup(tokens: ArrayLike<number>): KvSequence {
    this.checkUsable();
    const found = this.prefixes.find(tokens);
    const sequence = this.sequence();
    found.forEach((ids, ordinal) => {
      ids.forEach((id, group) => sequence.rings[group].main.adopt(ordinal, id));
    });
    sequence.begin(found.length * this.blockTokens);
    return sequence;
  }

  /** Tokens that lookup() would find, without a sequence. @throws GqaError INVALID_ARGUMENT, DISPOSED, BUSY. */
  sharedPrefix(tokens: ArrayLike<number>): number {
    this.checkUsable();
    return this.prefixes.sharedTokens(tokens);
  }

  /**
   * Blocks [fromBlock, toBlock) of the shared prefix of these tokens, as bytes that importPrefix() takes in another process
   * with a cache of the same layers, dtypes, windows and model: one array per block of `blockTokens` tokens, all layers.
   *
   * @throws GqaError INVALID_ARGUMENT, OUT_OF_RANGE (toBlock beyond what is shared), OUT_OF_MEMORY, DISPOSED, BUSY.
   */
  exportPrefix(tokens: ArrayLike<number>, fromBlock: number, toBlock: number): Uint8Array[] {
    this.checkUsable();
    return exportBlocks(this, tokens, fromBlock, toBlock);
  }

  /**
   * Takes blocks of exportPrefix(), those of tokens from `firstBlock * blockTokens` on, among the shared prefixes, as far
   * as there is room for them and what comes before them is shared.
   *
   * @returns how many of these tokens lookup() can find now
   * @throws GqaError INVALID_ARGUMENT, OUT_OF_RANGE (more blocks than tokens, or than a sequence holds), INVALID_SNAPSHOT
   *   (damaged, of another version), SNAPSHOT_MISMATCH (of another cache, or other tokens), DISPOSED, BUSY. The cache is
   *   as it was then.
   */
  importPrefix(
    tokens: ArrayLike<number>,
    firstBlock: number,
    blocks: readonly Uint8Array[],
  ): number {
    this.checkUsable();
    return importBlocks(this, tokens, firstBlock, blocks);
  }

  /** Says whose blocks importPrefix() takes: SHA-256 of model, layers, dtypes and windows, in hexadecimal digits. */
  get prefixLayout(): string {
    return layoutDigest(this).toString('hex');
  }

  /**
   * Whether step() of these entries would find room in their sequences, and free blocks; shared prefixes that nobody else
   * holds count as free.
   *
   * @throws GqaError as step, CAPACITY_EXCEEDED apart
   */
  fits(entries: readonly StepEntry[]): boolean {
    this.checkUsable();
    return stepFits(this, entries);
  }

  /** Tokens for which blocks are free; shared prefixes that nobody else holds count as free. 0 after dispose. */
  get freeTokens(): number {
    return this.state === DISPOSED ? 0 : freeTokens(this);
  }

  /**
   * Plans the next tokens of several sequences, which then go through the layers together.
   *
   * @throws GqaError INVALID_ARGUMENT (no entries, a sequence of another cache or given twice, a tree that is none),
   *   OUT_OF_RANGE (no tokens, or more than a row could be attended with), CAPACITY_EXCEEDED (no room in a sequence, or no
   *   block is free), LAYERS_UNEVEN, DISPOSED, BUSY.
   */
  step(entries: readonly StepEntry[], options: StepOptions = {}): KvStep {
    this.checkUsable();
    return new KvStep(this, planStep(this, entries, options));
  }

  /**
   * A new sequence from the bytes of `sequence.snapshot()`: that of a cache of the same layers, dtypes, windows and model,
   * with room for it.
   *
   * @throws GqaError INVALID_SNAPSHOT (damaged, foreign, of another version), SNAPSHOT_MISMATCH (of another cache),
   *   INVALID_ARGUMENT, CAPACITY_EXCEEDED (all sequences are in use, or not as many blocks are free), OUT_OF_MEMORY,
   *   DISPOSED, BUSY. The cache is as it was then.
   */
  restore(bytes: Uint8Array): KvSequence {
    return restoreSequence(this, bytes);
  }

  /**
   * The same from a file or a stream, which is read to its end. The cache can be used meanwhile.
   *
   * @throws GqaError as restore, and STORE_FAILED where reading fails.
   */
  async restoreFrom(source: string | NodeJS.ReadableStream): Promise<KvSequence> {
    return restoreSequenceFrom(this, source);
  }

  /**
   * The same from a store that a sequence was saved in under this name. The cache can be used meanwhile.
   *
   * @throws GqaError as restore, INVALID_ARGUMENT where nothing was saved under the name, STORE_FAILED where the store
   *   fails.
   */
  async loadFrom(store: BlockStore, name: string): Promise<KvSequence> {
    return loadSequenceFrom(this, store, name);
  }

  /** Frees the storage at once and disposes every sequence; a second call does nothing. @throws GqaError BUSY. */
  dispose(): void {
    if (this.state === DISPOSED) return;
    this.checkUsable();
    // All of them or none.
    for (const sequence of this.live) sequence.checkUsable('cache');
    for (const sequence of this.live) sequence.dispose();
    this.prefixes.clear();
    this.state = DISPOSED;
    for (const group of this.groups) group.dispose();
  }

  [disposeSymbol](): void {
    this.dispose();
  }

  /** @internal A sequence has been disposed. */
  forget(sequence: KvSequence): void {
    this.live.delete(sequence);
  }

  /** @internal For tests. */
  get liveSequences(): ReadonlySet<KvSequence> {
    return this.live;
  }

  /** @internal An async call begins to read the cache; it calls release() when it has settled. */
  hold(): void {
    this.state++;
  }

  /** @internal */
  release(): void {
    this.state--;
  }

  /** @internal @throws GqaError DISPOSED, BUSY */
  checkUsable(): void {
    if (this.state !== IDLE) throw stateError(this.state, 'cache', 'cache');
  }
}

interface Storage {
  groups: LayerGroup[];
  storage: LayerStorage[];
  blockTokens: number;
  room: BlockRoom;
}

/** All layers' arenas, or none. */
function createStorage(plan: CachePlan, backend: Backend): Storage {
  const { capacity, blockTokens, room } = planBlocks(plan);
  const byShape = new Map<string, LayerGroup>();
  const storage: LayerStorage[] = [];
  checkedProduct([plan.layers.length, plan.sequences, capacity, 4], 'options.capacity');
  try {
    for (const layer of plan.layers) {
      const geometry = planRing(layer.ring, blockTokens);
      const shape = JSON.stringify(geometry);
      let group = byShape.get(shape);
      if (group === undefined) {
        group = new LayerGroup(geometry, room, backend);
        byShape.set(shape, group);
      }
      storage.push(group.addLayer(layer, plan));
    }
  } catch (error) {
    for (const group of byShape.values()) group.dispose();
    throw error;
  }
  return { groups: [...byShape.values()], storage, blockTokens, room };
}
