/** A sequence in arenas of the JS backend, and what they hold of it, by the definitions of test/support/quantise.ts. */
import type { Arena, ArenaLayout, BlockTable, CacheSource } from '../../../lib/backend/contract';
import { roundToDtype, type FloatName } from '../../support/numbers';
import {
  asStored,
  keysAsStored,
  rotated,
  turnedBack,
  type CacheName,
} from '../../support/quantise';
import type { Random } from '../../support/random';
import { toBits } from '../../support/tensors';
import { js } from './support';

export const BLOCK_TOKENS = 64;

export interface Storage {
  kvHeads: number;
  headDim: number;
  valueDim: number;
  keyDtype: CacheName;
  valueDtype: CacheName;
  rotateKeys: boolean;
  rotateValues: boolean;
}

/** Blocks that a tail of floats holds for a sequence; those before firstOrdinal are whole. */
export interface TailExtent {
  sinkOrdinals: number;
  firstOrdinal: number;
}

export function isQuantised(dtype: CacheName): dtype is 'q8' | 'q4' {
  return dtype === 'q8' || dtype === 'q4';
}

export function floatName(dtype: CacheName): FloatName {
  return isQuantised(dtype) ? 'f16' : dtype;
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

/** Rows [tokens][kvHeads] of dims, as appended. */
export interface Rows {
  k: number[];
  v: number[];
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

function mapRows(x: number[], dims: number, f: (row: number[]) => number[]): number[] {
  const rows = Array.from({ length: x.length / dims }, (_, n) => x.slice(n * dims, (n + 1) * dims));
  return rows.flatMap(f);
}

/** Rows as the tail holds them: turned, then rounded. */
export function tailRows(storage: Storage, { k, v }: Rows): Rows {
  const held = (x: number[], dims: number, turn: boolean, dtype: CacheName): number[] =>
    mapRows(x, dims, (row) =>
      (turn ? rotated(row) : row).map((y) => roundToDtype(y, floatName(dtype))),
    );
  return {
    k: held(k, storage.headDim, storage.rotateKeys, storage.keyDtype),
    v: held(v, storage.valueDim, storage.rotateValues, storage.valueDtype),
  };
}

/** One block's rows, as they lie in an arena of floats, after a copy into the storage. */
export function copiedRows(storage: Storage, { k, v }: Rows): Rows {
  const { kvHeads, headDim, valueDim, keyDtype, valueDtype } = storage;
  const values = mapRows(v, valueDim, (row) => asStored(row, valueDtype));
  if (!isQuantised(keyDtype)) {
    return { k: k.map((x) => roundToDtype(x, keyDtype)), v: values };
  }
  const keys = [...k];
  for (let head = 0; head < kvHeads; head++) {
    const at = (t: number): number => (t * kvHeads + head) * headDim;
    const tokens = k.length / (kvHeads * headDim);
    const rows = Array.from({ length: tokens }, (_, t) => k.slice(at(t), at(t) + headDim));
    keysAsStored(rows, keyDtype).forEach((row, t) => keys.splice(at(t), headDim, ...row));
  }
  return { k: keys, v: values };
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
    const { k, v } = inTail ? part : copiedRows(storage, part);
    held.k.push(...(storage.rotateKeys ? mapRows(k, headDim, turnedBack) : k));
    held.v.push(...(storage.rotateValues ? mapRows(v, valueDim, turnedBack) : v));
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
