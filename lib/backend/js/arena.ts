/**
 * Storage of one layer's blocks, ordered [kvHeads][blocks]. A block of one KV head is, as floats, K in panels
 * [blockTokens / 8][headDim][8 tokens] and V in rows [blockTokens][valueDim rounded up to 8]; quantised, K is codes in
 * the same panels beside f16 minimums and scales [2][headDim] (quantised-keys.ts), and V rows of GGUF's blocks
 * (quantised-values.ts).
 *
 * Typed arrays have a largest length, so blocks lie in chunks of as many whole blocks as one array may hold.
 */
import { freemem, totalmem } from 'node:os';
import type { CacheDType, FloatData } from '../../core/dtype';
import { cacheRowBytes, DTYPE_BYTES } from '../../core/dtype';
import { GqaError } from '../../core/errors';
import type { Arena, ArenaLayout, BlockTable } from '../contract';
import { roundUpToLanes } from './panel';

/** 1 GiB of f32: far below every engine's limit, and indices stay small integers. */
const MAX_CHUNK_ELEMENTS = 2 ** 28;

const ELEMENT_BYTES: Readonly<Record<CacheDType, number>> = { ...DTYPE_BYTES, q8: 1, q4: 1 };

const NOTHING = new Uint8Array(0);

/** Where a block begins, and its elements. */
export interface BlockPlace {
  data: FloatData | Uint8Array;
  offset: number;
  elements: number;
}

/** The places that modules look blocks up in. */
const places: BlockPlace[] = [];

/** A place for a module to keep. */
export function newPlace(): BlockPlace {
  const place = { data: NOTHING, offset: 0, elements: 0 };
  places.push(place);
  return place;
}

export class JsArena implements Arena {
  readonly bytes: number;
  /** From one token's value to the next: elements, or bytes where quantised. */
  readonly valueStride: number;
  private readonly keys: BlockPool;
  private readonly keyScales: BlockPool | null;
  private readonly values: BlockPool;

  constructor(
    readonly layout: ArenaLayout,
    maxChunkElements = MAX_CHUNK_ELEMENTS,
  ) {
    const { kvHeads, blocks, blockTokens, headDim, valueDim, keyDtype, valueDtype } = layout;
    const quantised = isQuantised(valueDtype);
    this.valueStride = quantised ? cacheRowBytes(valueDtype, valueDim) : roundUpToLanes(valueDim);
    const keyElements = (blockTokens * headDim) / (keyDtype === 'q4' ? 2 : 1);
    const count = kvHeads * blocks;
    const pool = (elements: number, dtype: CacheDType): BlockPool =>
      new BlockPool(count, elements, dtype, maxChunkElements);
    this.keys = pool(keyElements, keyDtype);
    this.keyScales = isQuantised(keyDtype) ? pool(2 * headDim, 'f16') : null;
    this.values = pool(blockTokens * this.valueStride, valueDtype);
    this.bytes = this.keys.bytes + this.values.bytes + (this.keyScales?.bytes ?? 0);
  }

  locateKeys(kvHead: number, id: number, place: BlockPlace): void {
    this.keys.locate(kvHead * this.layout.blocks + id, place);
  }

  /** The minimums of a quantised block, its scales behind them. */
  locateKeyScales(kvHead: number, id: number, place: BlockPlace): void {
    this.keyScales!.locate(kvHead * this.layout.blocks + id, place);
  }

  locateValues(kvHead: number, id: number, place: BlockPlace): void {
    this.values.locate(kvHead * this.layout.blocks + id, place);
  }

  dispose(): void {
    this.keys.release();
    this.keyScales?.release();
    this.values.release();
    // None may keep the arena's memory alive.
    for (const place of places) place.data = NOTHING;
  }
}

/** Equal blocks in as few typed arrays as the limit on their length allows. */
class BlockPool {
  readonly bytes: number;
  private readonly blocksPerChunk: number;
  private chunks: (FloatData | Uint8Array)[] = [];

  constructor(
    blocks: number,
    private readonly blockElements: number,
    dtype: CacheDType,
    maxChunkElements: number,
  ) {
    this.blocksPerChunk = Math.max(1, Math.floor(maxChunkElements / blockElements));
    this.bytes = blocks * blockElements * ELEMENT_BYTES[dtype];
    for (let start = 0; start < blocks; start += this.blocksPerChunk) {
      const elements = Math.min(this.blocksPerChunk, blocks - start) * blockElements;
      this.chunks.push(allocate(elements, dtype, this.bytes));
    }
  }

  locate(block: number, place: BlockPlace): void {
    const within = block % this.blocksPerChunk;
    place.data = this.chunks[(block - within) / this.blocksPerChunk];
    place.offset = within * this.blockElements;
    place.elements = this.blockElements;
  }

  release(): void {
    this.chunks = [];
  }
}

/**
 * `total` is what the caller is building, in bytes. More than the machine has is refused at once: an engine hands out
 * untouched pages far beyond that.
 * @throws GqaError OUT_OF_MEMORY
 */
export function allocate(
  elements: number,
  dtype: CacheDType,
  total: number,
): FloatData | Uint8Array {
  if (total > totalmem()) throw outOfMemory(total);
  try {
    if (isQuantised(dtype)) return new Uint8Array(elements);
    return dtype === 'f32' ? new Float32Array(elements) : new Uint16Array(elements);
  } catch (cause) {
    throw outOfMemory(total, cause);
  }
}

function outOfMemory(bytes: number, cause?: unknown): GqaError {
  const received = `a machine of ${totalmem()} bytes, ${freemem()} of them free`;
  return new GqaError('OUT_OF_MEMORY', `Cannot allocate ${bytes} bytes on ${received}`, {
    expected: `${bytes} bytes of memory`,
    received,
    cause,
  });
}

export function isQuantised(dtype: CacheDType): dtype is 'q8' | 'q4' {
  return dtype === 'q8' || dtype === 'q4';
}

/** Arena block of an ordinal, see BlockTable. The table's ids begin at element `first` of its array. */
export function blockId(table: BlockTable, first: number, ordinal: number): number {
  const { ids, sinkBlocks, ringBlocks } = table;
  if (ordinal < sinkBlocks) return ids[first + ordinal];
  return ids[first + sinkBlocks + ((ordinal - sinkBlocks) % ringBlocks)];
}
