/**
 * What a KvCache must look like from outside: every token ever appended and not cut off, in plain arrays, what is stored
 * of each, and the rules of what is held, from the documents. Nothing here is evicted, shared or packed.
 */
import { floatsAgain, quantisedBlock, storedRow, turn } from './cache-contents';
import type { ContentShape, Row, Storage } from './cache-contents';
import type { FloatName } from './numbers';
import { isQuantised, turnedBack } from './quantise';

const { ceil, floor, max, min } = Math;

export interface Token {
  id: number;
  /** Of this token and all before it. */
  history: number;
  /** In the text; within a tree of drafts several tokens have the same. */
  position: number;
}

export interface LayerRules extends ContentShape {
  capacity: number;
  /** Infinity for none. */
  window: number;
  sinkTokens: number;
  slack: number;
}

export interface CacheRules {
  layers: readonly LayerRules[];
  storage: Storage;
  /** What keys, values and queries come in. */
  given: FloatName;
  recent: number;
  blockTokens: number;
}

/** Newest tokens held beside the sinks. */
export function keepOf({ window, capacity, sinkTokens }: LayerRules): number {
  return window === Infinity ? capacity : capacity - sinkTokens;
}

/** Oldest position besides the sinks that is held once a sequence has had `peak` tokens. */
export function startAfter(rules: LayerRules, peak: number): number {
  return rules.window !== Infinity && peak > rules.capacity ? peak - keepOf(rules) : 0;
}

/** A token as it was appended, or numbers that a rollback brought back. */
type Cell = Token | Row;

/** A block of tokens, quantised when it is first looked at. */
class Block {
  private rows: Row[] | null = null;

  constructor(
    readonly cells: readonly Cell[],
    private readonly layer: MirrorLayer,
  ) {}

  row(slot: number): Row {
    return this.all()[slot];
  }

  all(): Row[] {
    const { layer, cells } = this;
    const { storage } = layer.cache;
    this.rows ??= quantisedBlock(
      layer.rules,
      storage,
      cells.map((cell) => layer.floats(cell)),
    );
    return this.rows;
  }
}

/** Which blocks are read in floats. */
interface FloatRange {
  sinkOrdinals: number;
  firstOrdinal: number;
}

export class MirrorLayer {
  /** Of floats: every token. */
  private cells: Cell[] = [];
  /** Of quantised blocks: the tail's slots, and all blocks ever whole. */
  private tail = new Map<number, { ordinal: number; cells: Cell[] }>();
  private blocks = new Map<number, Block>();
  private sinksInFloats: boolean;
  length = 0;

  constructor(
    readonly cache: CacheRules,
    readonly rules: LayerRules,
    readonly index: number,
    /** Rows by a token's history, shared by all sequences. */
    private readonly memo: Map<number, Row>,
  ) {
    this.sinksInFloats = this.tailSinks > 0;
  }

  clone(): MirrorLayer {
    const copy = new MirrorLayer(this.cache, this.rules, this.index, this.memo);
    copy.cells = this.cells.slice();
    for (const [slot, { ordinal, cells }] of this.tail) {
      copy.tail.set(slot, { ordinal, cells: cells.slice() });
    }
    copy.blocks = new Map(this.blocks);
    copy.sinksInFloats = this.sinksInFloats;
    copy.length = this.length;
    return copy;
  }

  private get quantised(): boolean {
    const { k, v } = this.cache.storage;
    return isQuantised(k) || isQuantised(v);
  }

  private get tailSinks(): number {
    const { recent, blockTokens } = this.cache;
    return recent > 0 ? ceil(this.rules.sinkTokens / blockTokens) : 0;
  }

  private tailSlot(ordinal: number): number {
    const sinks = this.tailSinks;
    const ring = 2 + ceil(min(this.cache.recent, this.rules.capacity) / this.cache.blockTokens);
    return ordinal < sinks ? ordinal : sinks + ((ordinal - sinks) % ring);
  }

  /** Whether every block before `length` is as tokens were appended, not rounded twice. */
  isPristine(length: number): boolean {
    for (let o = 0; (o + 1) * this.cache.blockTokens <= length && this.quantised; o++) {
      if (!this.blocks.get(o)!.cells.every((cell) => 'history' in cell)) return false;
    }
    return true;
  }

  floats(cell: Cell): Row {
    if (!('history' in cell)) return cell;
    let row = this.memo.get(cell.history);
    if (row === undefined) {
      const { storage, given } = this.cache;
      row = storedRow(this.rules, storage, given, this.index, cell);
      this.memo.set(cell.history, row);
    }
    return row;
  }

  append(tokens: readonly Token[]): void {
    for (const token of tokens) this.write(this.length++, token);
  }

  private write(position: number, cell: Cell): void {
    if (!this.quantised) {
      this.cells[position] = cell;
      return;
    }
    const { blockTokens } = this.cache;
    const ordinal = floor(position / blockTokens);
    const slot = this.tailSlot(ordinal);
    const at = position % blockTokens;
    if (at === 0) this.tail.set(slot, { ordinal, cells: [] });
    const block = this.tail.get(slot)!;
    if (block.ordinal !== ordinal) throw new Error('the mirror lost a block of floats');
    block.cells[at] = cell;
    if (at === blockTokens - 1) this.blocks.set(ordinal, new Block(block.cells.slice(), this));
  }

  truncate(length: number): void {
    this.length = length;
    this.cells.length = min(this.cells.length, length);
    if (!this.quantised) return;
    if (length === 0) this.sinksInFloats = this.tailSinks > 0;
    const { blockTokens } = this.cache;
    const ordinal = floor(length / blockTokens);
    const at = length % blockTokens;
    if (at === 0) return;
    const slot = this.tailSlot(ordinal);
    if (this.tail.get(slot)?.ordinal === ordinal) return;
    // The tail has gone on: what was quantised comes back.
    const cells = floatsAgain(this.cache.storage, this.blocks.get(ordinal)!.all());
    this.tail.set(slot, { ordinal, cells });
  }

  /** Begins with the blocks of these tokens, quantised if at all. */
  adopt(tokens: readonly Token[]): void {
    this.append(tokens);
    this.tail.clear();
    if (tokens.length > 0) this.sinksInFloats = false;
  }

  /** Blocks in floats: that of the newest token, recent ones that the tail still holds without a gap, sinks. */
  floatRange(): FloatRange {
    const { length } = this;
    if (!this.quantised) return { sinkOrdinals: 0, firstOrdinal: 0 };
    const { recent, blockTokens } = this.cache;
    const newest = max(1, min(recent, this.rules.capacity));
    const oldest = floor(max(0, length - newest) / blockTokens);
    let firstOrdinal = ceil(length / blockTokens);
    while (firstOrdinal > oldest && this.inTail(firstOrdinal - 1)) firstOrdinal--;
    return { sinkOrdinals: this.sinksInFloats ? this.tailSinks : 0, firstOrdinal };
  }

  private inTail(ordinal: number): boolean {
    return this.tail.get(this.tailSlot(ordinal))?.ordinal === ordinal;
  }

  /**
   * A token's key and value as attention finds them, not rotated, and not turned where the cache turns keys.
   *
   * @param index its place in the sequence
   */
  rowAt(index: number, position: number, range: FloatRange): Row {
    return this.plain(this.storedAt(index, range), position);
  }

  private storedAt(index: number, { sinkOrdinals, firstOrdinal }: FloatRange): Row {
    if (!this.quantised) return this.floats(this.cells[index]);
    const { blockTokens } = this.cache;
    const ordinal = floor(index / blockTokens);
    const at = index % blockTokens;
    if (ordinal < firstOrdinal && ordinal >= sinkOrdinals) return this.blocks.get(ordinal)!.row(at);
    const block = this.tail.get(this.tailSlot(ordinal))!;
    if (block.ordinal !== ordinal) throw new Error('the mirror lost a block of floats');
    return this.floats(block.cells[at]);
  }

  private readonly plainRows = new WeakMap<Row, Row>();

  private plain(row: Row, position: number): Row {
    const { turned, rotateKeys, rotateValues } = this.cache.storage;
    if (!turned && !rotateKeys && !rotateValues) return row;
    let plain = this.plainRows.get(row);
    if (plain === undefined) {
      const { kvHeads, headDim, valueDim } = this.rules;
      plain = { k: row.k.slice(), v: row.v.slice() };
      for (let head = 0; head < kvHeads; head++) {
        const k = plain.k.subarray(head * headDim, (head + 1) * headDim);
        const v = plain.v.subarray(head * valueDim, (head + 1) * valueDim);
        if (rotateKeys) k.set(turnedBack(k));
        if (rotateValues) v.set(turnedBack(v));
        if (turned) turn(k, 0, headDim, position, true);
      }
      this.plainRows.set(row, plain);
    }
    return plain;
  }
}
