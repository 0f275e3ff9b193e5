/** Blocks of an arena as f32 panels, and from one dtype into another. */
import { BLOCK_VALUES } from '../../core/dtype';
import type { FloatData, FloatDType } from '../../core/dtype';
import type { CopyBlockArgs } from '../contract';
import type { BlockPlace, JsArena } from './arena';
import { isQuantised, newPlace } from './arena';
import type { Panel } from './panel';
import { LANES, roundUpToLanes } from './panel';
import { dequantizeKeys, quantizeKeys } from './quantised-keys';
import { dequantizeValues, quantizeValues } from './quantised-values';
import { narrow, widen } from './rows';

const place = newPlace();
const target = newPlace();
/** The block on its way, as f32; grown when needed. */
let scratch = new Float32Array(0);
const panel: Panel = { data: scratch, offset: 0, stride: 0 };

/** Elements that a block of K or of V takes as f32, with room for whole groups of 32 in the last row. */
export function panelElements(tokens: number, dims: number): number {
  return tokens * roundUpToLanes(dims) + BLOCK_VALUES;
}

/** Points `keys` at the block's panels with slots [from, to) readable: f32 where they lie, else widened into `room`. */
export function showKeys(
  arena: JsArena,
  kvHead: number,
  id: number,
  from: number,
  to: number,
  keys: Panel,
  room: Float32Array,
): void {
  const { headDim, keyDtype } = arena.layout;
  const firstPanel = Math.floor(from / LANES);
  const lastPanel = Math.ceil(to / LANES);
  if (isQuantised(keyDtype)) {
    keys.data = room;
    keys.offset = 0;
    dequantizeKeys(arena, kvHead, id, room, firstPanel, lastPanel);
    return;
  }
  const panelSize = headDim * LANES;
  arena.locateKeys(kvHead, id, place);
  showFloats(keyDtype, firstPanel * panelSize, lastPanel * panelSize, keys, room);
}

/** The same for the rows of V. */
export function showValues(
  arena: JsArena,
  kvHead: number,
  id: number,
  from: number,
  to: number,
  values: Panel,
  room: Float32Array,
): void {
  const { valueDtype } = arena.layout;
  if (isQuantised(valueDtype)) {
    values.data = room;
    values.offset = 0;
    dequantizeValues(arena, kvHead, id, room, from, to);
    return;
  }
  arena.locateValues(kvHead, id, place);
  showFloats(valueDtype, from * arena.valueStride, to * arena.valueStride, values, room);
}

/** Elements [from, to) of the block at `place`. */
function showFloats(
  dtype: FloatDType,
  from: number,
  to: number,
  shown: Panel,
  room: Float32Array,
): void {
  if (dtype === 'f32') {
    shown.data = place.data as Float32Array;
    shown.offset = place.offset;
    return;
  }
  shown.data = room;
  shown.offset = 0;
  widen(place.data as FloatData, dtype, place.offset + from, room, from, to - from);
}

export function copyBlock(args: CopyBlockArgs): void {
  const from = args.from as JsArena;
  const to = args.to as JsArena;
  const { kvHeads, headDim, valueDim, blockTokens } = from.layout;
  const room = panelElements(blockTokens, Math.max(headDim, valueDim));
  if (scratch.length < room) scratch = new Float32Array(room);
  for (let head = 0; head < kvHeads; head++) {
    copyKeys(from, args.fromId, to, args.toId, head);
    copyValues(from, args.fromId, to, args.toId, head);
  }
  panel.data = scratch; // no arena's
}

function copyKeys(from: JsArena, fromId: number, to: JsArena, toId: number, head: number): void {
  const { keyDtype: dtype, blockTokens } = to.layout;
  if (from.layout.keyDtype === dtype) {
    from.locateKeys(head, fromId, place);
    to.locateKeys(head, toId, target);
    copyElements(place, target);
    if (!isQuantised(dtype)) return;
    from.locateKeyScales(head, fromId, place);
    to.locateKeyScales(head, toId, target);
    copyElements(place, target);
    return;
  }
  showKeys(from, head, fromId, 0, blockTokens, panel, scratch);
  if (isQuantised(dtype)) {
    quantizeKeys(panel.data, panel.offset, to, head, toId);
  } else {
    to.locateKeys(head, toId, target);
    roundElements(dtype);
  }
}

function copyValues(from: JsArena, fromId: number, to: JsArena, toId: number, head: number): void {
  const { valueDtype: dtype, blockTokens } = to.layout;
  if (from.layout.valueDtype === dtype) {
    from.locateValues(head, fromId, place);
    to.locateValues(head, toId, target);
    copyElements(place, target);
    return;
  }
  showValues(from, head, fromId, 0, blockTokens, panel, scratch);
  if (isQuantised(dtype)) {
    quantizeValues(panel.data, panel.offset, to, head, toId);
  } else {
    to.locateValues(head, toId, target);
    roundElements(dtype);
  }
}

function copyElements(from: BlockPlace, to: BlockPlace): void {
  to.data.set(from.data.subarray(from.offset, from.offset + from.elements), to.offset);
}

/** The block at `panel` to the place at `target`. */
function roundElements(dtype: FloatDType): void {
  const { data, offset } = panel;
  const floats = data.subarray(offset, offset + target.elements);
  narrow(floats, target.data as FloatData, dtype, target.offset, 1, target.elements);
}
