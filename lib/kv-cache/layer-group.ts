/** Layers whose sequences need the same blocks: they share block ids, and so tables, reference counts and rollbacks. */
import type { Arena, ArenaLayout, Backend } from '../backend/contract';
import { QUANTISED_LIMIT, blocksOf } from '../core/dtype';
import type { CacheDType } from '../core/dtype';
import { expectedError } from '../core/errors';
import { allocate, checkedProduct } from '../core/validate';
import { BlockPool } from './block-pool';
import type { RingGeometry } from './geometry';
import type { BlockRoom, CachePlan, KeyRotation, LayerPlan } from './options';
import { BlockRing, BlockSlots } from './ring';
import { blockBytes } from './sizes';

/** Block ids are 32 bits, in native/ops.h too. */
const MAX_BLOCKS = 2 ** 31 - 1;

/** One layer's storage and shape. */
export interface LayerStorage {
  kvHeads: number;
  headDim: number;
  valueDim: number;
  group: LayerGroup;
  arena: Arena;
  tailArena: Arena | null;
  rope: KeyRotation | null;
  /** Magnitudes that keys and values must stay below; Infinity where anything may be stored. */
  keyLimit: number;
  valueLimit: number;
}

export class LayerGroup {
  readonly members: LayerStorage[] = [];
  readonly pool: BlockPool;
  readonly tailPool: BlockPool | null;

  constructor(
    readonly geometry: RingGeometry,
    room: BlockRoom,
    private readonly backend: Backend,
  ) {
    const { blocks, tailBlocks } = blockCounts(geometry, room);
    this.pool = new BlockPool(blocks);
    this.tailPool = tailBlocks === null ? null : new BlockPool(tailBlocks);
  }

  /** A sequence's empty ring. */
  newRing(): BlockRing {
    const { geometry, pool, tailPool, members, backend } = this;
    const main = new BlockSlots(geometry, pool, (fromId, toId) => {
      for (const { arena } of members) backend.copyBlock({ from: arena, fromId, to: arena, toId });
    });
    if (geometry.tail === null || tailPool === null) return new BlockRing(geometry, main, null);
    const tail = new BlockSlots(geometry.tail, tailPool, (fromId, toId) => {
      for (const { tailArena } of members) {
        backend.copyBlock({ from: tailArena!, fromId, to: tailArena!, toId });
      }
    });
    return new BlockRing(geometry, main, tail);
  }

  /** Allocates a layer's arenas. @throws GqaError OUT_OF_RANGE, OUT_OF_MEMORY; nothing is left allocated then. */
  addLayer(plan: LayerPlan, cache: CachePlan): LayerStorage {
    const { keyDtype, valueDtype, rotateKeys, rotateValues } = cache;
    const { kvHeads, headDim, valueDim, rope } = plan;
    const counts = { blocks: this.pool.blocks, tailBlocks: this.tailPool?.blocks ?? null };
    const { main, tail } = arenaLayouts(plan, cache, this.geometry.blockTokens, counts);
    const arena = this.createArena(main);
    let tailArena: Arena | null = null;
    try {
      if (tail !== null) tailArena = this.createArena(tail);
    } catch (error) {
      arena.dispose();
      throw error;
    }
    const limit = (dtype: CacheDType, rotated: boolean, dim: number): number =>
      blocksOf(dtype) === null ? Infinity : QUANTISED_LIMIT / (rotated ? growth(dim) : 1);
    const layer: LayerStorage = {
      kvHeads,
      headDim,
      valueDim,
      group: this,
      arena,
      tailArena,
      rope,
      // Turning a pair by RoPE can make either number as large as the pair is long.
      keyLimit: limit(keyDtype, rotateKeys, headDim) / (rope === null ? 1 : Math.SQRT2),
      valueLimit: limit(valueDtype, rotateValues, valueDim),
    };
    this.members.push(layer);
    return layer;
  }

  private createArena(layout: ArenaLayout): Arena {
    const bytes = checkArena(layout);
    return allocate(() => this.backend.createArena(layout), bytes, 'options.capacity');
  }

  dispose(): void {
    for (const { arena, tailArena } of this.members) {
      arena.dispose();
      tailArena?.dispose();
    }
  }
}

/** An arena's bytes without padding. @throws GqaError OUT_OF_RANGE where ids or sizes cannot count them */
export function checkArena(layout: ArenaLayout): number {
  const { blocks, blockTokens } = layout;
  if (blocks > MAX_BLOCKS) {
    const expected = `at most ${MAX_BLOCKS} blocks of ${blockTokens} tokens`;
    throw expectedError('OUT_OF_RANGE', 'options.capacity', expected, `${blocks} blocks`);
  }
  return checkedProduct([blocks, blockBytes(layout)], 'options.capacity');
}

/** Blocks of a group's pools. */
export interface BlockCounts {
  blocks: number;
  /** Of floats beside quantised ones; null in a cache of floats. */
  tailBlocks: number | null;
}

export function blockCounts(
  { sinkBlocks, ringBlocks, tail }: RingGeometry,
  { sequences, prefixBlocks, budgetBlocks }: BlockRoom,
): BlockCounts {
  return {
    blocks: Math.min(budgetBlocks, sequences * (sinkBlocks + ringBlocks) + prefixBlocks),
    tailBlocks: tail === null ? null : sequences * (tail.sinkBlocks + tail.ringBlocks),
  };
}

/** A layer's arenas. */
export function arenaLayouts(
  { kvHeads, headDim, valueDim }: LayerPlan,
  { keyDtype, valueDtype, rotateKeys, rotateValues }: CachePlan,
  blockTokens: number,
  { blocks, tailBlocks }: BlockCounts,
): { main: ArenaLayout; tail: ArenaLayout | null } {
  const shape = { kvHeads, headDim, valueDim, rotateKeys, rotateValues, blockTokens };
  const main = { ...shape, keyDtype, valueDtype, blocks };
  return { main, tail: tailBlocks === null ? null : tailOf(main, tailBlocks) };
}

/** The same in floats: f16 holds what q8 and q4 take. */
function tailOf(layout: ArenaLayout, blocks: number): ArenaLayout {
  const float = (dtype: CacheDType): CacheDType => (blocksOf(dtype) === null ? dtype : 'f16');
  const { keyDtype, valueDtype } = layout;
  return { ...layout, keyDtype: float(keyDtype), valueDtype: float(valueDtype), blocks };
}

/** By how much the rotation can grow the largest of `dim` numbers: the square root of its width, once or twice. */
function growth(dim: number): number {
  const width = 2 ** Math.floor(Math.log2(dim));
  return width === dim ? Math.sqrt(width) : width;
}
