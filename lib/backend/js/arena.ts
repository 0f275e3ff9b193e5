/**
 * Storage of one layer's blocks. A block of one KV head holds K as panels [blockTokens / 8][headDim][8 tokens] and V as
 * rows [blockTokens][valueDim rounded up to 8], in the arena's dtype; a quantised one holds rows of bytes for both
 * (core/blocks.ts). Blocks are ordered [kvHeads][blocks].
 *
 * Typed arrays have a largest length, so blocks lie in chunks of as many whole blocks as one array may hold.
 */
import { freemem, totalmem } from 'node:os';
import type { CacheDType, FloatData } from '../../core/dtype';
import { blocksOf, cacheRowBytes, DTYPE_BYTES } from '../../core/dtype';
import { GqaError } from '../../core/errors';
import type { Arena, ArenaLayout, BlockTable } from '../contract';
import { roundUpToLanes } from './panel';

/** 1 GiB of f32: far below every engine's limit, and indices stay small integers. */
const MAX_CHUNK_ELEMENTS = 2 ** 28;

const ELEMENT_BYTES: Readonly<Record<CacheDType, number>> = { ...DTYPE_BYTES, q8: 1, q4: 1 };

/** Where a block begins. */
export interface BlockPlace {
  data: FloatData | Uint8Array;
  offset: number;
}

export class JsArena implements Arena {
  readonly bytes: number;
  /** Elements of a token's key, and of a row of V; bytes where quantised. */
  readonly keyStride: number;
  readonly valueStride: number;
  private readonly keys: BlockPool;
  private readonly values: BlockPool;

  constructor(
    readonly layout: ArenaLayout,
    maxChunkElements = MAX_CHUNK_ELEMENTS,
  ) {
    const { kvHeads, blocks, blockTokens, headDim, valueDim, keyDtype: dtype } = layout;
    const quantised = blocksOf(dtype) !== null;
    this.keyStride = quantised ? cacheRowBytes(dtype, headDim) : headDim;
    this.valueStride = quantised ? cacheRowBytes(dtype, valueDim) : roundUpToLanes(valueDim);
    const count = kvHeads * blocks;
    this.keys = new BlockPool(count, blockTokens * this.keyStride, dtype, maxChunkElements);
    this.values = new BlockPool(count, blockTokens * this.valueStride, dtype, maxChunkElements);
    this.bytes = this.keys.bytes + this.values.bytes;
  }

  locateKeys(kvHead: number, id: number, place: BlockPlace): void {
    this.keys.locate(kvHead * this.layout.blocks + id, place);
  }

  locateValues(kvHead: number, id: number, place: BlockPlace): void {
    this.values.locate(kvHead * this.layout.blocks + id, place);
  }

  dispose(): void {
    this.keys.release();
    this.values.release();
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
    if (blocksOf(dtype) !== null) return new Uint8Array(elements);
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

/** Arena block of an ordinal, see BlockTable. */
export function blockId(table: BlockTable, ordinal: number): number {
  const { ids, sinkBlocks, ringBlocks } = table;
  return ids[ordinal < sinkBlocks ? ordinal : sinkBlocks + ((ordinal - sinkBlocks) % ringBlocks)];
}
