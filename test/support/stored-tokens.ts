/**
 * One layer of a cache that never forgets, as it stores its tokens (docs/numerics.md): new ones in floats; a quantised
 * cache quantises a block of 64 once it is whole, and reads the newest token's block, those of recent ones and perhaps the
 * sinks', in floats still.
 */
import { copiedRows, isQuantised, tailRows, turnedRows } from './stored-rows';
import type { Rows, Storage } from './stored-rows';

const { ceil, floor, max, min } = Math;

const BLOCK = 64;
/** The unfinished block and the one before it are there in floats whatever `recent` is. */
const TAIL_BLOCKS = 2;

export class StoredTokens {
  length = 0;
  /** Of each block, as floats hold it, and once it was needed as attention finds it quantised. */
  private readonly floats: Rows[] = [];
  private readonly whole: (Rows | undefined)[] = [];
  /** Blocks before this one are no longer there in floats, but for the sinks'. */
  private tailFrom = 0;
  private readonly quantised: boolean;

  constructor(
    private readonly storage: Storage,
    private readonly recent = 0,
    private readonly sinkTokens = 0,
  ) {
    this.quantised = isQuantised(storage.keyDtype) || isQuantised(storage.valueDtype);
  }

  append(rows: Rows): void {
    const { kvHeads, headDim, valueDim } = this.storage;
    const tokens = rows.k.length / (kvHeads * headDim);
    const held = tailRows(this.storage, rows);
    for (let t = 0; t < tokens; t++, this.length++) {
      const block = floor(this.length / BLOCK);
      const { k, v } = (this.floats[block] ??= { k: [], v: [] });
      push(k, held.k, t * kvHeads * headDim, kvHeads * headDim);
      push(v, held.v, t * kvHeads * valueDim, kvHeads * valueDim);
      this.whole[block] = undefined;
    }
    this.tailFrom = max(this.tailFrom, ceil(this.length / BLOCK) - this.tailBlocks);
  }

  private get tailBlocks(): number {
    return ceil(this.recent / BLOCK) + TAIL_BLOCKS;
  }

  /** A block that is cut open long after it was quantised goes on with the numbers it has. */
  truncate(length: number): void {
    const block = floor(length / BLOCK);
    const rest = length - block * BLOCK;
    if (rest > 0 && length < this.length) {
      if (this.quantised && block < this.tailFrom && block >= this.floatSinks) {
        this.floats[block] = tailRows(
          unturned(this.storage),
          copiedRows(this.storage, this.floats[block]),
        );
      }
      const { kvHeads, headDim, valueDim } = this.storage;
      this.floats[block].k.length = rest * kvHeads * headDim;
      this.floats[block].v.length = rest * kvHeads * valueDim;
    }
    this.floats.length = min(this.floats.length, ceil(length / BLOCK));
    this.whole.length = min(this.whole.length, block);
    this.tailFrom = min(this.tailFrom, block);
    this.length = length;
  }

  private get floatSinks(): number {
    return this.recent > 0 ? ceil(this.sinkTokens / BLOCK) : 0;
  }

  /** All tokens, as attention finds them now. */
  read(): Rows {
    const recent = floor(max(0, this.length - max(1, this.recent)) / BLOCK);
    const firstFloat = this.quantised ? max(this.tailFrom, recent) : 0;
    const rows: Rows = { k: [], v: [] };
    this.floats.forEach((block, ordinal) => {
      const inFloats = ordinal < this.floatSinks || ordinal >= firstFloat;
      const held = inFloats ? turnedRows(this.storage, block) : this.quantisedBlock(ordinal);
      push(rows.k, held.k, 0, held.k.length);
      push(rows.v, held.v, 0, held.v.length);
    });
    return rows;
  }

  private quantisedBlock(ordinal: number): Rows {
    return (this.whole[ordinal] ??= turnedRows(
      this.storage,
      copiedRows(this.storage, this.floats[ordinal]),
    ));
  }
}

/** Rows that are turned already are only rounded. */
function unturned(storage: Storage): Storage {
  return { ...storage, rotateKeys: false, rotateValues: false };
}

function push(to: number[], from: number[], first: number, count: number): void {
  for (let i = first; i < first + count; i++) to.push(from[i]);
}
