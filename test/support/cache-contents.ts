/**
 * Keys and values of tokens that never were, and what a cache stores of them. A token's key and value follow from all
 * tokens up to it, as a model's do, so that equal beginnings have equal contents wherever they were computed.
 */
import { decodeSmall, encodeSmall, roundToDtype, type FloatName } from './numbers';
import { asStored, isQuantised, keysAsStored, rotated, type CacheName } from './quantise';
import { Random } from './random';

const { cos, fround, imul, sin } = Math;

/** A token's keys [kvHeads * headDim] and values [kvHeads * valueDim] in one layer. */
export interface Row {
  k: Float64Array;
  v: Float64Array;
}

export interface ContentShape {
  kvHeads: number;
  headDim: number;
  valueDim: number;
}

export interface Storage {
  k: CacheName;
  v: CacheName;
  rotateKeys: boolean;
  rotateValues: boolean;
  /** Whether the cache turns keys to their positions. */
  turned: boolean;
}

/** Where numbers may begin, and how many may follow. */
const PLACES = 2 ** 16;
const LONGEST = 2 ** 13;
const random = new Random(1);
const EXACT = Float64Array.from({ length: PLACES + LONGEST }, () => fround(random.normal()));
/** Normal numbers as each dtype has them, as values and as data. */
const NORMALS = {
  f32: { values: EXACT, data: Float32Array.from(EXACT) },
  f16: smallNormals('f16'),
  bf16: smallNormals('bf16'),
};

function smallNormals(dtype: 'f16' | 'bf16'): { values: Float64Array; data: Uint16Array } {
  const data = Uint16Array.from(EXACT, (x) => encodeSmall(x, dtype));
  return { values: Float64Array.from(data, (bits) => decodeSmall(bits, dtype)), data };
}

export function mix(a: number, b: number): number {
  let x = imul(a ^ 0x9e3779b9, 0x85ebca6b) + imul(b + 0x7f4a7c15, 0xc2b2ae35);
  x = imul(x ^ (x >>> 15), 0x2c1b3c6d);
  x = imul(x ^ (x >>> 12), 0x297a2d39);
  return x ^ (x >>> 15);
}

/** `count` numbers that follow from `seed`, LONGEST at most; not to be written. */
export function numbersOf(seed: number, count: number, dtype: FloatName): Float64Array {
  const from = (seed >>> 0) % PLACES;
  return NORMALS[dtype].values.subarray(from, from + count);
}

/** The same as f32 numbers, or as the bits of 16-bit ones. */
export function dataOf(seed: number, count: number, dtype: FloatName): Float32Array | Uint16Array {
  const from = (seed >>> 0) % PLACES;
  return NORMALS[dtype].data.subarray(from, from + count);
}

/** What tells a token from all others: its id and all tokens before it. */
export function historyOf(before: number, id: number): number {
  return mix(before, id);
}

/** What a token's key or value in a layer follows from. */
export function seedOf(history: number, layer: number, part: 'k' | 'v'): number {
  return mix(history, part === 'k' ? 2 * layer : 2 * layer + 1);
}

/** A token's key and value as a model gives them, not turned to its position. */
function givenRow(shape: ContentShape, history: number, layer: number, dtype: FloatName): Row {
  const { kvHeads, headDim, valueDim } = shape;
  return {
    k: numbersOf(seedOf(history, layer, 'k'), kvHeads * headDim, dtype),
    v: numbersOf(seedOf(history, layer, 'v'), kvHeads * valueDim, dtype),
  };
}

/** cos and sin of the angles of a position, [pairs][2], by head dim and position. */
const ANGLES = new Map<number, Float64Array[]>();

function anglesOf(dim: number, position: number): Float64Array {
  let known = ANGLES.get(dim);
  if (known === undefined) ANGLES.set(dim, (known = []));
  return (known[position] ??= Float64Array.from({ length: 2 * (dim >> 1) }, (_, i) => {
    const angle = position * 100 ** (-(i >> 1) / (dim >> 1));
    return i % 2 === 0 ? cos(angle) : sin(angle);
  }));
}

/**
 * RoPE by the definition: pair r of row[from .. from + dim) is (r, r + pairs), turned by position * 100^(-r / pairs),
 * backwards where asked; an odd last dim stays.
 */
export function turn(
  row: Float64Array | Float32Array,
  from: number,
  dim: number,
  position: number,
  backwards = false,
): void {
  const pairs = dim >> 1;
  const angles = anglesOf(dim, position);
  for (let r = 0; r < pairs; r++) {
    const c = angles[2 * r];
    const s = backwards ? -angles[2 * r + 1] : angles[2 * r + 1];
    const [a, b] = [row[from + r], row[from + r + pairs]];
    row[from + r] = a * c - b * s;
    row[from + r + pairs] = a * s + b * c;
  }
}

/** The same for a cache: in f32, rounded once. */
export function ropeOf(headDim: number) {
  return {
    headDim,
    apply(x: Float32Array, tokens: number, heads: number, start: number): void {
      for (let t = 0; t < tokens; t++) {
        for (let h = 0; h < heads; h++) turn(x, (t * heads + h) * headDim, headDim, start + t);
      }
    },
  };
}

function floatOf(dtype: CacheName): FloatName {
  return isQuantised(dtype) ? 'f16' : dtype;
}

/** Heads' rows, each passed through `change`. */
function byHead(
  row: Float64Array,
  dim: number,
  change: (head: Float64Array) => ArrayLike<number>,
): Float64Array {
  const all = row.slice();
  for (let from = 0; from < all.length; from += dim) {
    all.set(change(all.subarray(from, from + dim)), from);
  }
  return all;
}

function rounded(row: Float64Array, dtype: FloatName): Float64Array {
  for (let i = 0; i < row.length; i++) row[i] = roundToDtype(row[i], dtype);
  return row;
}

/** What is stored of a token as long as it is in floats: turned, rotated, rounded; quantised dtypes as f16. */
export function storedRow(
  shape: ContentShape,
  storage: Storage,
  given: FloatName,
  layer: number,
  token: { history: number; position: number },
): Row {
  let { k, v } = givenRow(shape, token.history, layer, given);
  if (storage.turned) {
    const turned = new Float32Array(k);
    ropeOf(shape.headDim).apply(turned, 1, shape.kvHeads, token.position);
    k = new Float64Array(turned);
  }
  if (storage.rotateKeys) k = byHead(k, shape.headDim, rotated);
  if (storage.rotateValues) v = byHead(v, shape.valueDim, rotated);
  return { k: rounded(k.slice(), floatOf(storage.k)), v: rounded(v.slice(), floatOf(storage.v)) };
}

/** A whole block of such rows as its numbers are once it is quantised. */
export function quantisedBlock(shape: ContentShape, storage: Storage, rows: readonly Row[]): Row[] {
  const { kvHeads, headDim, valueDim } = shape;
  const block = rows.map(({ k, v }) => ({ k: k.slice(), v }));
  if (isQuantised(storage.k)) {
    for (let head = 0; head < kvHeads; head++) {
      const [from, to] = [head * headDim, (head + 1) * headDim];
      const held = keysAsStored(
        rows.map(({ k }) => k.subarray(from, to)),
        storage.k,
      );
      held.forEach((key, t) => block[t].k.set(key, from));
    }
  }
  const { v: dtype } = storage;
  if (!isQuantised(dtype)) return block;
  return block.map(({ k, v }) => ({ k, v: byHead(v, valueDim, (row) => asStored(row, dtype)) }));
}

/** A quantised block's rows back in floats, as a rollback into it makes them. */
export function floatsAgain(storage: Storage, rows: readonly Row[]): Row[] {
  return rows.map(({ k, v }) => ({
    k: rounded(k.slice(), floatOf(storage.k)),
    v: rounded(v.slice(), floatOf(storage.v)),
  }));
}
