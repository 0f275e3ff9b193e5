/** What the blocks of a cache hold of appended rows, turned and quantised, from the definitions in quantise.ts. */
import { roundToDtype, type FloatName } from './numbers';
import { asStored, keysAsStored, rotated, turnedBack, type CacheName } from './quantise';

export interface Storage {
  kvHeads: number;
  headDim: number;
  valueDim: number;
  keyDtype: CacheName;
  valueDtype: CacheName;
  rotateKeys: boolean;
  rotateValues: boolean;
}

/** Rows [tokens][kvHeads] of dims, as appended. */
export interface Rows {
  k: number[];
  v: number[];
}

export function isQuantised(dtype: CacheName): dtype is 'q8' | 'q4' {
  return dtype === 'q8' || dtype === 'q4';
}

export function floatName(dtype: CacheName): FloatName {
  return isQuantised(dtype) ? 'f16' : dtype;
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

/** Rows as attention finds them. */
export function turnedRows(storage: Storage, { k, v }: Rows): Rows {
  return {
    k: storage.rotateKeys ? mapRows(k, storage.headDim, turnedBack) : k,
    v: storage.rotateValues ? mapRows(v, storage.valueDim, turnedBack) : v,
  };
}
