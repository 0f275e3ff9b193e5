/** Sequences in blocks of arenas at the level of the backend, and what attention over them should give. */
import { getBackend } from '../../lib/backend';
import type { Arena, BlockTable, TailSource } from '../../lib/backend/contract-cache';
import { attentionOracle, mergeOracle, type OracleResult } from '../oracle';
import { roundToDtype, type FloatName } from './numbers';
import type { Random } from './random';
import { normals } from './tensors';

const { fround, max } = Math;

export interface PagedShape {
  kvHeads: number;
  headDim: number;
  valueDim: number;
  dtype: FloatName;
  /** Of the tail's arena; absent without one. */
  tailDtype?: FloatName;
  blockTokens: number;
}

/** Ordinals below `sinkOrdinals` and from `firstOrdinal` on lie in the tail. */
export interface TailRange {
  sinkOrdinals: number;
  firstOrdinal: number;
}

/** A sequence's tokens: where they lie, and their values as stored, [tokens, kvHeads, dim]. */
export interface PagedSequence {
  keyTokens: number;
  table: BlockTable;
  tail: TailSource | null;
  k: number[];
  v: number[];
}

const BLOCKS = 96;

/** Two arenas whose free blocks are given out in random order. What no token was stored in holds NaN. */
export class PagedStore {
  readonly main: Arena;
  readonly tail: Arena | null;
  private readonly free = new Map<Arena, number[]>();

  constructor(
    readonly shape: PagedShape,
    readonly random: Random,
    blocks = BLOCKS,
  ) {
    this.main = this.arena(shape.dtype, blocks);
    this.tail = shape.tailDtype === undefined ? null : this.arena(shape.tailDtype, blocks);
  }

  dispose(): void {
    this.main.dispose();
    this.tail?.dispose();
  }

  private arena(dtype: FloatName, blocks: number): Arena {
    const { kvHeads, headDim, valueDim, blockTokens } = this.shape;
    const dtypes = { keyDtype: dtype, valueDtype: dtype, rotateKeys: false, rotateValues: false };
    const layout = { kvHeads, headDim, valueDim, ...dtypes, blockTokens, blocks };
    const arena = getBackend().createArena(layout);
    const ids = Array.from({ length: blocks }, (_, id) => id);
    const count = blocks * blockTokens;
    const nothing = (dim: number) => new Float32Array(count * kvHeads * dim).fill(NaN);
    const rows = { k: nothing(headDim), v: nothing(valueDim), dtype: 'f32' as const };
    const table = { ids: Int32Array.from(ids), sinkBlocks: 0, ringBlocks: blocks };
    getBackend().store({ arena, table, ...rows, from: 0, count, position: 0 });
    this.free.set(arena, this.random.shuffle(ids));
    return arena;
  }

  /**
   * A sequence that begins with `prefixTokens`, whole blocks, of another. Tables name no block that the other arena
   * holds, nor, where only `visible` keys are, one of the others.
   */
  sequence(
    keyTokens: number,
    range: TailRange | null = null,
    prefix: { of: PagedSequence; tokens: number } | null = null,
    visible: (position: number) => boolean = () => true,
  ): PagedSequence {
    const { kvHeads, headDim, valueDim, blockTokens } = this.shape;
    const ordinals = Math.ceil(keyTokens / blockTokens);
    const shared = prefix === null ? 0 : prefix.tokens;
    const own = keyTokens - shared;
    const draw = (dim: number) => normals(this.random, own * kvHeads * dim, 'f32');
    const inTail = (o: number) =>
      range !== null && (o < range.sinkOrdinals || o >= range.firstOrdinal);
    const fresh = { k: draw(headDim), v: draw(valueDim) };
    const held = {
      k: prefix === null ? [] : prefix.of.k.slice(0, shared * kvHeads * headDim),
      v: prefix === null ? [] : prefix.of.v.slice(0, shared * kvHeads * valueDim),
    };
    const tables = [this.main, this.tail].map((arena, i) => {
      const ids = new Int32Array(ordinals).fill(-1);
      for (let o = 0; o < ordinals; o++) {
        const seen = Array.from({ length: blockTokens }, (_, t) => o * blockTokens + t).some(
          (position) => position < keyTokens && visible(position),
        );
        if (arena === null || inTail(o) !== (i === 1) || !seen) continue;
        if (o * blockTokens < shared) {
          ids[o] = (i === 1 ? prefix!.of.tail!.table : prefix!.of.table).ids[o];
        } else {
          ids[o] = this.free.get(arena)!.pop()!;
          if (ids[o] === undefined) throw new Error('no block is left');
        }
      }
      return { ids, sinkBlocks: 0, ringBlocks: ordinals };
    });
    for (let from = shared; from < keyTokens;) {
      const ordinal = Math.floor(from / blockTokens);
      const to = Math.min(keyTokens, (ordinal + 1) * blockTokens);
      const i = inTail(ordinal) ? 1 : 0;
      const dtype = i === 1 ? this.shape.tailDtype! : this.shape.dtype;
      const part = (x: number[], dim: number) =>
        x.slice((from - shared) * kvHeads * dim, (to - shared) * kvHeads * dim);
      const k = part(fresh.k, headDim);
      const v = part(fresh.v, valueDim);
      held.k.push(...k.map((x) => roundToDtype(x, dtype)));
      held.v.push(...v.map((x) => roundToDtype(x, dtype)));
      if (tables[i].ids[ordinal] >= 0) {
        getBackend().store({
          arena: i === 1 ? this.tail! : this.main,
          table: tables[i],
          k: Float32Array.from(k),
          v: Float32Array.from(v),
          dtype: 'f32',
          from: 0,
          count: to - from,
          position: from,
        });
      }
      from = to;
    }
    const [table, tailTable] = tables;
    const tail = range === null ? null : { arena: this.tail!, table: tailTable, ...range };
    return { keyTokens, table, tail, ...held };
  }
}

/** What rows see and how their scores are made; of all sequences of a step. */
export interface RowFeatures {
  window: number;
  sinkTokens: number;
  scale: number;
  softcap: number;
  alibiSlopes: Float32Array | null;
  sinkLogits: Float32Array | null;
}

export function rowFeatures(overrides: Partial<RowFeatures> = {}): RowFeatures {
  return {
    window: Infinity,
    sinkTokens: 0,
    scale: 0.25,
    softcap: 0,
    alibiSlopes: null,
    sinkLogits: null,
    ...overrides,
  };
}

/** Positions of an entry's tokens below their first, and which of the entry's tokens each one sees. */
export interface Tree {
  depths: number[];
  sees: boolean[][];
}

/**
 * A tree from each token's parent, -1 for a root; a token sees its ancestors within the window, and those less deep than
 * `sinks`.
 */
export function treeOf(parents: readonly number[], window: number, sinks = 0): Tree {
  const depths: number[] = [];
  const sees = parents.map(() => parents.map(() => false));
  parents.forEach((parent, i) => {
    depths.push(parent < 0 ? 0 : depths[parent] + 1);
    for (let j = i; j >= 0; j = parents[j]) {
      sees[i][j] = depths[i] - depths[j] < window || depths[j] < sinks;
    }
  });
  return { depths, sees };
}

/** A chain: token i sees those up to itself. */
export function chainOf(tokens: number, window: number, sinks = 0): Tree {
  const parents = Array.from({ length: tokens }, (_, i) => i - 1);
  return treeOf(parents, window, sinks);
}

/** The oracle over a sequence's newest tokens; visibility and positions are spelled out as masks and biases. */
export function expectedRows(
  shape: PagedShape,
  heads: number,
  sequence: PagedSequence,
  q: number[],
  sinkQ: number[] | null,
  tree: Tree,
  f: RowFeatures,
): OracleResult {
  const { keyTokens } = sequence;
  const tokens = tree.depths.length;
  const base = keyTokens - tokens;
  const rowAt = (i: number) => base + tree.depths[i];
  const keyAt = (j: number) => (j < base ? j : rowAt(j - base));
  const sees = (i: number, j: number) =>
    j < base ? rowAt(i) - j < f.window || j < f.sinkTokens : tree.sees[i][j - base];
  const slope = (h: number) => (f.alibiSlopes === null ? 0 : f.alibiSlopes[h]);
  const plane = <T>(value: (i: number, j: number) => T) =>
    Array.from({ length: tokens }, (_, i) =>
      Array.from({ length: keyTokens }, (__, j) => value(i, j)),
    ).flat();
  const bias = Array.from({ length: heads }, (_, h) =>
    plane((i, j) => slope(h) * (keyAt(j) - rowAt(i))),
  ).flat();
  const part = (queries: number[], meets: (j: number) => boolean, sinkLogits: boolean) =>
    attentionOracle({
      ...shape,
      ...{ batch: 1, queryTokens: tokens, keyTokens, heads, scale: f.scale, softcap: f.softcap },
      ...{ q: queries, k: sequence.k, v: sequence.v },
      mask: { data: plane((i, j) => (sees(i, j) && meets(j) ? 1 : 0)), batch: 1, heads: 1 },
      bias: { data: bias, batch: 1, heads },
      sinkLogits: sinkLogits && f.sinkLogits !== null ? f.sinkLogits : undefined,
    });
  if (sinkQ === null) return part(q, () => true, true);
  const parts = [
    part(q, (j) => j >= f.sinkTokens, true),
    part(sinkQ, (j) => j < f.sinkTokens, false),
  ];
  const merged = mergeOracle(parts, tokens * heads, shape.valueDim);
  const largestScore = max(parts[0].largestScore, parts[1].largestScore);
  return { ...merged, largestScore, stats: null };
}

export function someSlopes(heads: number): Float32Array {
  return Float32Array.from({ length: heads }, (_, h) => fround(2 ** (-(h + 1) / 2)));
}
