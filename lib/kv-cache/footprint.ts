/** Bytes that a cache would hold, by the arithmetic of the cache itself, without holding them. */
import { getBackend } from '../backend';
import type { ArenaLayout } from '../backend/contract';
import { planRing } from './geometry';
import { arenaLayouts, blockCounts, checkArena } from './layer-group';
import { planBlocks, planCache } from './options';
import type { KvCacheOptions } from './options';
import { blockBytes } from './sizes';

export interface LayerFootprint {
  /** Of a token's keys and values, scales included, padding not. */
  bytesPerToken: number;
  /** Of the blocks, as the backend in use pads them. */
  blockBytes: number;
  /** Of the newest tokens in floats beside quantised ones. */
  tailBytes: number;
}

export interface CacheFootprint {
  /** What `new KvCache(options).bytes` would be. */
  bytes: number;
  bytesPerToken: number;
  layers: readonly LayerFootprint[];
}

/** Bytes of a block by the arena's shape: arenas are whole blocks, so one of a single block tells. */
const measured = new Map<string, number>();

function arenaBytes(layout: ArenaLayout): number {
  checkArena(layout);
  const backend = getBackend();
  const key = JSON.stringify([backend.info.kind, backend.info.isa, { ...layout, blocks: 1 }]);
  let bytes = measured.get(key);
  if (bytes === undefined) {
    const arena = backend.createArena({ ...layout, blocks: 1 });
    bytes = arena.bytes;
    arena.dispose();
    measured.set(key, bytes);
  }
  return bytes * layout.blocks;
}

/** @throws GqaError as the constructor of KvCache, but for OUT_OF_MEMORY */
export function cacheFootprint(options: KvCacheOptions): CacheFootprint {
  const plan = planCache(options);
  const { blockTokens, room } = planBlocks(plan);
  const layers = plan.layers.map((layer): LayerFootprint => {
    const counts = blockCounts(planRing(layer.ring, blockTokens), room);
    const { main, tail } = arenaLayouts(layer, plan, blockTokens, counts);
    return {
      bytesPerToken: blockBytes(main) / blockTokens,
      blockBytes: arenaBytes(main),
      tailBytes: tail === null ? 0 : arenaBytes(tail),
    };
  });
  const sum = (of: (layer: LayerFootprint) => number): number =>
    layers.reduce((total, layer) => total + of(layer), 0);
  return {
    bytes: sum((layer) => layer.blockBytes + layer.tailBytes),
    bytesPerToken: sum((layer) => layer.bytesPerToken),
    layers,
  };
}
