/**
 * Keys and values of one KV head, a block at a time, as f32 panels whatever their source: K [tokens/8][headDim][8] and
 * V rows [tokens][valueDim rounded up to 8]. Each element is gathered and widened once per tile of query rows, so once
 * per group in decode; an f32 arena is read where it lies.
 */
import { dequantizeRow } from '../../core/blocks';
import type { FloatData, FloatDType } from '../../core/dtype';
import { blocksOf } from '../../core/dtype';
import type { AttendArgs, CacheSource, TensorSource } from '../contract';
import type { BlockPlace, JsArena } from './arena';
import { blockId } from './arena';
import { laneOffset } from './pack';
import type { Panel } from './panel';
import { LANES, roundUpToLanes } from './panel';
import { narrow, widen } from './rows';
import type { Workspace } from './workspace';
import { MAX_BLOCK_TOKENS } from './workspace';

export interface KeyBlocks {
  /** The block of ordinal o holds keys [o * tokens, (o + 1) * tokens). */
  readonly tokens: number;
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
    : new ArenaBlocks(args.kv, workspace);
}

class ArenaBlocks implements KeyBlocks {
  readonly tokens: number;
  readonly keys: Panel;
  readonly values: Panel;
  private readonly arena: JsArena;
  private readonly place: BlockPlace;
  private readonly row: Float32Array;

  constructor(
    private readonly source: CacheSource,
    workspace: Workspace,
  ) {
    this.arena = source.arena as JsArena;
    this.tokens = this.arena.layout.blockTokens;
    this.keys = { data: workspace.keys, offset: 0, stride: LANES };
    this.values = {
      data: workspace.values,
      offset: 0,
      stride: roundUpToLanes(this.arena.layout.valueDim),
    };
    this.row = workspace.row;
    this.place = { data: workspace.keys, offset: 0 };
  }

  load(_batch: number, kvHead: number, ordinal: number, from: number, to: number): void {
    const { headDim } = this.arena.layout;
    const { valueStride } = this.arena;
    const id = blockId(this.source.table, ordinal);
    const firstPanel = from - (from % LANES);
    const blocks = blocksOf(this.arena.layout.keyDtype);
    if (blocks !== null) return this.dequantise(blocks, kvHead, id, from, to);
    this.arena.locateKeys(kvHead, id, this.place);
    this.show(this.keys, firstPanel * headDim, roundUpToLanes(to) * headDim);
    this.arena.locateValues(kvHead, id, this.place);
    this.show(this.values, from * valueStride, to * valueStride);
  }

  /** Slots [from, to) of a quantised block, into the workspace. */
  private dequantise(
    blocks: 'q8_0' | 'q4_1',
    kvHead: number,
    id: number,
    from: number,
    to: number,
  ): void {
    const { arena, place, row, keys, values } = this;
    const { headDim, valueDim } = arena.layout;
    arena.locateKeys(kvHead, id, place);
    for (let slot = from; slot < to; slot++) {
      const at = place.offset + slot * arena.keyStride;
      dequantizeRow(blocks, place.data as Uint8Array, at, row, headDim);
      narrow(row, keys.data, 'f32', laneOffset(slot, headDim), LANES, headDim);
    }
    arena.locateValues(kvHead, id, place);
    for (let slot = from; slot < to; slot++) {
      const at = place.offset + slot * arena.valueStride;
      dequantizeRow(blocks, place.data as Uint8Array, at, row, valueDim);
      narrow(row, values.data, 'f32', slot * values.stride, 1, valueDim);
    }
  }

  /** Elements [from, to) of the block at `place`: f32 where they lie, 16 bits widened into the workspace. */
  private show(panel: Panel, from: number, to: number): void {
    const dtype = this.arena.layout.keyDtype as FloatDType;
    const { offset } = this.place;
    const data = this.place.data as FloatData;
    if (dtype === 'f32') {
      panel.data = data as Float32Array;
      panel.offset = offset;
    } else {
      widen(data, dtype, offset + from, panel.data, from, to - from);
    }
  }
}

class TensorBlocks implements KeyBlocks {
  readonly tokens = MAX_BLOCK_TOKENS;
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
