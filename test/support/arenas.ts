/** Arenas filled block by block, as a cache fills them, and what they must hold. */
import { getBackend } from '../../lib/backend';
import type { Arena, ArenaLayout, BlockTable } from '../../lib/backend/contract';
import type { FloatName } from './numbers';
import { roundToDtype } from './numbers';
import { asStored, isQuantised, keysAsStored, rotated, type CacheName } from './quantise';
import type { Random } from './random';
import { normals, toBits } from './tensors';

export const BLOCK_TOKENS = 64;

export interface ArenaCase {
  keyDtype: CacheName;
  valueDtype: CacheName;
  kvHeads: number;
  headDim: number;
  valueDim: number;
  rotateKeys?: boolean;
  rotateValues?: boolean;
  /** Whole blocks of tokens. */
  blocks: number;
}

/** [head][token][dim] */
export type HeadRows = number[][][];

export interface FilledArena {
  arena: Arena;
  table: BlockTable;
  /** What the arena stores, rotated where it rotates. */
  keys: HeadRows;
  values: HeadRows;
}

/** The dtype of the arena through which tokens go into one of this dtype. */
export function tailDtype(dtype: CacheName): FloatName {
  return isQuantised(dtype) ? 'f16' : dtype;
}

export function layoutOf(c: ArenaCase, blocks = c.blocks): ArenaLayout {
  const { keyDtype, valueDtype, kvHeads, headDim, valueDim } = c;
  const [rotateKeys, rotateValues] = [c.rotateKeys === true, c.rotateValues === true];
  const blockTokens = BLOCK_TOKENS;
  return {
    ...{ keyDtype, valueDtype, kvHeads, headDim, valueDim },
    ...{ rotateKeys, rotateValues, blockTokens, blocks },
  };
}

/** Ids that are not their ordinals. */
export function tableOf(blocks: number): BlockTable {
  const ids = Int32Array.from({ length: blocks }, (_, o) => blocks - 1 - o);
  return { ids, sinkBlocks: 0, ringBlocks: blocks };
}

/** A dim is off by its own amount, as keys are; [token][head * dim] flattened. */
function randomTokens(random: Random, tokens: number, width: number): number[] {
  const offsets = normals(random, width, 'f32', 2);
  return normals(random, tokens * width, 'f32').map((x, i) => Math.fround(x + offsets[i % width]));
}

function headRows(flat: number[], kvHeads: number, dims: number): HeadRows {
  const tokens = flat.length / (kvHeads * dims);
  return Array.from({ length: kvHeads }, (_, h) =>
    Array.from({ length: tokens }, (_, t) =>
      flat.slice((t * kvHeads + h) * dims, (t * kvHeads + h + 1) * dims),
    ),
  );
}

/** Stores random tokens into a float arena and, where the case is quantised, copies its blocks. */
export function fillArena(c: ArenaCase, random: Random): FilledArena {
  const backend = getBackend();
  const table = tableOf(c.blocks);
  const tokens = c.blocks * BLOCK_TOKENS;
  const k = randomTokens(random, tokens, c.kvHeads * c.headDim);
  const v = randomTokens(random, tokens, c.kvHeads * c.valueDim);
  const floats = { keyDtype: tailDtype(c.keyDtype), valueDtype: tailDtype(c.valueDtype) };
  const tail = backend.createArena(layoutOf({ ...c, ...floats }));
  // In two appends, the second of which begins within a block.
  for (const [from, count] of [
    [0, 37],
    [37, tokens - 37],
  ]) {
    const rows = { k: toBits(k, 'f32'), v: toBits(v, 'f32'), dtype: 'f32' as const };
    backend.store({ arena: tail, table, ...rows, from, count, position: from });
  }
  const turn = (rotates: boolean | undefined, row: number[]): number[] =>
    rotates === true ? rotated(row) : row;
  const keys = headRows(k, c.kvHeads, c.headDim).map((rows) =>
    rows.map((row) => turn(c.rotateKeys, row).map((x) => roundToDtype(x, tailDtype(c.keyDtype)))),
  );
  const values = headRows(v, c.kvHeads, c.valueDim).map((rows) =>
    rows.map((row) =>
      turn(c.rotateValues, row).map((x) => roundToDtype(x, tailDtype(c.valueDtype))),
    ),
  );
  if (!isQuantised(c.keyDtype) && !isQuantised(c.valueDtype))
    return { arena: tail, table, keys, values };
  const arena = backend.createArena(layoutOf(c));
  for (const id of table.ids) backend.copyBlock({ from: tail, fromId: id, to: arena, toId: id });
  tail.dispose();
  return { arena, table, keys, values };
}

/** The rows of a block, [token][dim]. */
export function blockRows(rows: number[][], block: number): number[][] {
  return rows.slice(block * BLOCK_TOKENS, (block + 1) * BLOCK_TOKENS);
}

/** Keys as blocks of the dtype hold them. */
export function storedKeys(rows: number[][], dtype: CacheName): number[][] {
  if (!isQuantised(dtype)) return rows.map((row) => asStored(row, dtype));
  const blocks = rows.length / BLOCK_TOKENS;
  return Array.from({ length: blocks }, (_, b) => keysAsStored(blockRows(rows, b), dtype)).flat();
}

export function storedValues(rows: number[][], dtype: CacheName): number[][] {
  return rows.map((row) => asStored(row, dtype));
}
