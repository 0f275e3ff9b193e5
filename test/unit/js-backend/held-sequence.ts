/** A sequence in arenas of the JS backend, and what they hold of it, by the definitions of test/support/quantise.ts. */
import type { Arena, ArenaLayout, BlockTable, CacheSource } from '../../../lib/backend/contract';
import type { Random } from '../../support/random';
import { copiedRows, floatName, tailRows, turnedRows } from '../../support/stored-rows';
import type { Rows, Storage } from '../../support/stored-rows';
import { toBits } from '../../support/tensors';
import { js } from './support';

export const BLOCK_TOKENS = 64;

/** Blocks that a tail of floats holds for a sequence; those before firstOrdinal are whole. */
export interface TailExtent {
  sinkOrdinals: number;
  firstOrdinal: number;
}

export function createArena(storage: Storage, blocks: number): Arena {
  const { kvHeads, headDim, valueDim, keyDtype, valueDtype, rotateKeys, rotateValues } = storage;
  const layout: ArenaLayout = {
    ...{ kvHeads, headDim, valueDim, keyDtype, valueDtype, rotateKeys, rotateValues },
    ...{ blockTokens: BLOCK_TOKENS, blocks },
  };
  return js.createArena(layout);
}

/** The arena of floats beside it. */
export function createTail(storage: Storage, blocks: number): Arena {
  const { keyDtype, valueDtype } = storage;
  const dtypes = { keyDtype: floatName(keyDtype), valueDtype: floatName(valueDtype) };
  return createArena({ ...storage, ...dtypes }, blocks);
}

/** Stores rows in the tail and copies into the main arena the blocks that the tail is not read for. */
export function storeSequence(
  main: Arena,
  table: BlockTable,
  tail: Arena,
  tailTable: BlockTable,
  { k, v }: Rows,
  extent: TailExtent,
): CacheSource {
  const { kvHeads, headDim } = main.layout;
  const tokens = k.length / (kvHeads * headDim);
  const rows = { k: toBits(k, 'f32'), v: toBits(v, 'f32'), dtype: 'f32' as const };
  js.store({ arena: tail, table: tailTable, ...rows, from: 0, count: tokens, position: 0 });
  for (let o = extent.sinkOrdinals; o < extent.firstOrdinal; o++) {
    js.copyBlock({ from: tail, fromId: tailTable.ids[o], to: main, toId: table.ids[o] });
    // Who reads the tail for it is found out.
    const poison = { ...rows, k: rows.k.slice().fill(NaN), v: rows.v.slice().fill(NaN) };
    const at = { from: 0, count: BLOCK_TOKENS, position: o * BLOCK_TOKENS };
    js.store({ arena: tail, table: tailTable, ...poison, ...at });
  }
  return { type: 'cache', arena: main, table, tail: { arena: tail, table: tailTable, ...extent } };
}

/** What attention finds of appended rows: those of the tail's blocks, others copied, all turned back. */
export function heldRows(storage: Storage, rows: Rows, extent: TailExtent): Rows {
  const { kvHeads, headDim, valueDim } = storage;
  const held: Rows = { k: [], v: [] };
  const block = BLOCK_TOKENS * kvHeads;
  for (let o = 0; o * block * headDim < rows.k.length; o++) {
    const inTail = o < extent.sinkOrdinals || o >= extent.firstOrdinal;
    const part = tailRows(storage, {
      k: rows.k.slice(o * block * headDim, (o + 1) * block * headDim),
      v: rows.v.slice(o * block * valueDim, (o + 1) * block * valueDim),
    });
    const { k, v } = turnedRows(storage, inTail ? part : copiedRows(storage, part));
    held.k.push(...k);
    held.v.push(...v);
  }
  return held;
}

/** Shuffled blocks of an arena for `tables` sequences of `blocks` blocks each, no ring wrapped. */
export function tablesFor(random: Random, tables: number, blocks: number): BlockTable[] {
  const ids = random.shuffle(Array.from({ length: tables * blocks }, (_, id) => id));
  return Array.from({ length: tables }, (_, i) => ({
    ids: Int32Array.from(ids.slice(i * blocks, (i + 1) * blocks)),
    sinkBlocks: 0,
    ringBlocks: blocks,
  }));
}
