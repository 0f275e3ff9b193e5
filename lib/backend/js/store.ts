/** Tokens into float blocks of an arena, and from one position to another. */
import type { FloatData, FloatDType } from '../../core/dtype';
import type { BlockTable, MoveTokensArgs, StoreArgs } from '../contract';
import type { JsArena } from './arena';
import { blockId, newPlace } from './arena';
import { laneOffset, LANES } from './panel';
import { rotate } from './rotate';
import { narrow, widen } from './rows';

/** The row on its way, as f32; grown when needed. */
let row = new Float32Array(256);
const place = newPlace();
const target = newPlace();

export function store(args: StoreArgs): void {
  const { k, v, dtype: from, table } = args;
  const arena = args.arena as JsArena;
  const { kvHeads, headDim, valueDim, blockTokens, rotateKeys, rotateValues } = arena.layout;
  const keyDtype = arena.layout.keyDtype as FloatDType;
  const valueDtype = arena.layout.valueDtype as FloatDType;
  const dims = Math.max(headDim, valueDim);
  if (row.length < dims) row = new Float32Array(dims);
  for (let n = 0; n < args.count; n++) {
    const position = args.position + n;
    const slot = position % blockTokens;
    const id = blockId(table, 0, (position - slot) / blockTokens);
    for (let head = 0; head < kvHeads; head++) {
      const source = (args.from + n) * kvHeads + head;
      widen(k, from, source * headDim, row, 0, headDim);
      if (rotateKeys) rotate(row, 0, headDim);
      arena.locateKeys(head, id, place);
      const key = place.offset + laneOffset(slot, headDim);
      narrow(row, place.data as FloatData, keyDtype, key, LANES, headDim);

      widen(v, from, source * valueDim, row, 0, valueDim);
      if (rotateValues) rotate(row, 0, valueDim);
      arena.locateValues(head, id, place);
      const value = place.offset + slot * arena.valueStride;
      narrow(row, place.data as FloatData, valueDtype, value, 1, valueDim);
    }
  }
}

export function moveTokens(args: MoveTokensArgs): void {
  const arena = args.arena as JsArena;
  for (let i = 0; i < args.count; i++) moveToken(arena, args.table, args.from[i], args.to + i);
}

function moveToken(arena: JsArena, table: BlockTable, from: number, to: number): void {
  const { kvHeads, headDim, valueDim, blockTokens } = arena.layout;
  const fromSlot = from % blockTokens;
  const toSlot = to % blockTokens;
  const fromId = blockId(table, 0, (from - fromSlot) / blockTokens);
  const toId = blockId(table, 0, (to - toSlot) / blockTokens);
  for (let head = 0; head < kvHeads; head++) {
    arena.locateKeys(head, fromId, place);
    arena.locateKeys(head, toId, target);
    move(laneOffset(fromSlot, headDim), laneOffset(toSlot, headDim), LANES, headDim);
    arena.locateValues(head, fromId, place);
    arena.locateValues(head, toId, target);
    move(fromSlot * arena.valueStride, toSlot * arena.valueStride, 1, valueDim);
  }
}

/** `count` elements, `step` apart, of the block at `place` into the one at `target`. */
function move(from: number, to: number, step: number, count: number): void {
  const source = place.offset + from;
  const goal = target.offset + to;
  for (let i = 0; i < count * step; i += step) target.data[goal + i] = place.data[source + i];
}
