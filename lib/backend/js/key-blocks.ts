/**
 * Keys and values of one KV head, a block at a time, as f32 panels whatever their source: K [tokens/8][headDim][8] and
 * V rows [tokens][valueDim rounded up to 8]. Each element is gathered and widened once per tile of query rows, so once
 * per group in decode; an f32 arena is read where it lies.
 */
import type { Arena, AttendArgs, BlockTable, CacheSource, TensorSource } from '../contract';
import type { JsArena } from './arena';
import { blockId } from './arena';
import { showKeys, showValues } from './blocks';
import type { Panel } from './panel';
import { laneOffset, LANES, roundUpToLanes } from './panel';
import { narrow, widen } from './rows';
import type { Workspace } from './workspace';
import { MAX_BLOCK_TOKENS } from './workspace';

export interface KeyBlocks {
  /** The block of ordinal o holds keys [o * tokens, (o + 1) * tokens). */
  readonly tokens: number;
  /** Whether keys and values are stored turned (rotate.ts). */
  readonly rotateKeys: boolean;
  readonly rotateValues: boolean;
  /** The loaded block's first panel of 8 tokens; the next ones follow, headDim * 8 elements each. */
  readonly keys: Panel;
  /** The loaded block's first panel of 8 dims; the next ones follow, 8 elements on. */
  readonly values: Panel;
  /** Makes slots [from, to) of a block readable; the others may hold anything. */
  load(batch: number, kvHead: number, ordinal: number, from: number, to: number): void;
}

export function keyBlocks(args: AttendArgs, workspace: Workspace): KeyBlocks {
  return args.kv.type === 'tensor'
    ? new TensorBlocks(args, args.kv, workspace)
    : sourceBlocks(args.kv, workspace);
}

function sourceBlocks({ arena, table, tail }: CacheSource, workspace: Workspace): KeyBlocks {
  if (tail === null) return new ArenaBlocks(arena, table, null, table, workspace);
  const blocks = new ArenaBlocks(arena, table, tail.arena, tail.table, workspace);
  blocks.aim(0, 0, tail.sinkOrdinals, tail.firstOrdinal);
  return blocks;
}

/** Blocks of a sequence in an arena, or where there is a tail, some of them in its arena. */
export class ArenaBlocks implements KeyBlocks {
  readonly tokens: number;
  readonly rotateKeys: boolean;
  readonly rotateValues: boolean;
  readonly keys: Panel;
  readonly values: Panel;
  /** See `aim`; without a tail no ordinal is in it. */
  private firstId = 0;
  private firstTailId = 0;
  private sinkOrdinals = 0;
  private firstOrdinal = Infinity;

  constructor(
    private readonly arena: Arena,
    private readonly table: BlockTable,
    private readonly tailArena: Arena | null,
    private readonly tailTable: BlockTable,
    private readonly workspace: Workspace,
  ) {
    const { blockTokens, valueDim, rotateKeys, rotateValues } = arena.layout;
    this.tokens = blockTokens;
    this.rotateKeys = rotateKeys;
    this.rotateValues = rotateValues;
    this.keys = { data: workspace.keys, offset: 0, stride: LANES };
    this.values = { data: workspace.values, offset: 0, stride: roundUpToLanes(valueDim) };
  }

  /**
   * To the sequence whose ids begin at element `firstId` of the table's array, those of its tail at `firstTailId`; the tail
   * holds its blocks of ordinals below `sinkOrdinals` and from `firstOrdinal` on.
   */
  aim(firstId: number, firstTailId: number, sinkOrdinals: number, firstOrdinal: number): void {
    this.firstId = firstId;
    if (this.tailArena === null) return;
    this.firstTailId = firstTailId;
    this.sinkOrdinals = sinkOrdinals;
    this.firstOrdinal = firstOrdinal;
  }

  load(_batch: number, kvHead: number, ordinal: number, from: number, to: number): void {
    const inTail = ordinal < this.sinkOrdinals || ordinal >= this.firstOrdinal;
    const arena = (inTail ? this.tailArena : this.arena) as JsArena;
    const id = inTail
      ? blockId(this.tailTable, this.firstTailId, ordinal)
      : blockId(this.table, this.firstId, ordinal);
    showKeys(arena, kvHead, id, from, to, this.keys, this.workspace.keys);
    showValues(arena, kvHead, id, from, to, this.values, this.workspace.values);
  }
}

class TensorBlocks implements KeyBlocks {
  readonly tokens = MAX_BLOCK_TOKENS;
  readonly rotateKeys = false;
  readonly rotateValues = false;
  readonly keys: Panel;
  readonly values: Panel;
  private readonly row: Float32Array;

  constructor(
    private readonly args: AttendArgs,
    private readonly source: TensorSource,
    workspace: Workspace,
  ) {
    this.keys = { data: workspace.keys, offset: 0, stride: LANES };
    this.values = { data: workspace.values, offset: 0, stride: roundUpToLanes(args.valueDim) };
    this.row = workspace.row;
  }

  load(batch: number, kvHead: number, ordinal: number, from: number, to: number): void {
    const { keyTokens, kvHeads, headDim, valueDim } = this.args;
    const { k, v, dtype } = this.source;
    const { keys, values, row } = this;
    const first = batch * keyTokens + ordinal * this.tokens;
    for (let slot = from; slot < to; slot++) {
      const source = (first + slot) * kvHeads + kvHead;
      widen(k, dtype, source * headDim, row, 0, headDim);
      narrow(row, keys.data, 'f32', laneOffset(slot, headDim), LANES, headDim);
      widen(v, dtype, source * valueDim, values.data, slot * values.stride, valueDim);
    }
  }
}
