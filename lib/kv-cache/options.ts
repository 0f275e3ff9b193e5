/** What a cache is asked to be, checked, and what follows from it for every layer. */
import { blocksOf } from '../core/dtype';
import type { CacheDType } from '../core/dtype';
import { expectedError } from '../core/errors';
import { requireCacheDType, requirePerPart } from '../core/per-part';
import type { PerPart } from '../core/per-part';
import { MAX_HEAD_DIM, describe, requireBoolean, requireInteger } from '../core/validate';
import { requireOptions, requireWindow } from '../core/validate';
import { blockTokensFor } from './geometry';
import type { RingShape } from './geometry';

/** Turns x [tokens, heads, headDim] in place to positions start, start + 1, ...: RoPE. nn's `Rope` is one. */
export interface KeyRotation {
  readonly headDim: number;
  apply(x: Float32Array, tokens: number, heads: number, start: number): void;
}

/** What a layer has of its own; what is missing is the cache's. */
export interface LayerShape {
  kvHeads?: number;
  headDim?: number;
  valueDim?: number;
  /** Infinity for none. */
  window?: number;
  sinkTokens?: number;
  /** Tokens per sequence; default of a layer with a window of its own: sinkTokens + window + slack. */
  capacity?: number;
  rope?: KeyRotation;
}

export interface KvCacheOptions {
  /** Their number, or what each of them is. */
  layers: number | readonly LayerShape[];
  kvHeads?: number;
  headDim?: number;
  /** Size of a value's head where it differs from headDim. */
  valueDim?: number;
  /** Tokens per sequence. */
  capacity: number;
  /**
   * How keys and values are stored, both or apart; default 'f32'. 'q8' and 'q4' quantise blocks of 64 tokens: keys to 8.5
   * and 4.5 bits a number, values to 8.5 and 5 (docs/numerics.md).
   */
  dtype?: PerPart<CacheDType>;
  /** Whether keys and values are stored turned by a Hadamard rotation, which evens out outliers; default: where q4. */
  rotate?: PerPart<boolean>;
  /** Newest tokens that a quantised cache keeps in f16 as well and reads so, rounded up to blocks of 64, and the sinks; default 0. */
  recent?: number;
  /** Keys that a query sees, itself included; without it a sequence ends at `capacity`. */
  window?: number;
  /** First positions that stay visible whatever the window; default 0. */
  sinkTokens?: number;
  /**
   * Tokens that can still be rolled back once the window moves; default capacity - sinkTokens - window, 256 for layers
   * with a window of their own.
   */
  slack?: number;
  /** Sequences that can live at once; default 1. */
  sequences?: number;
  /**
   * Token slots of all sequences and shared prefixes together, in whole blocks, in each layer: what is allocated instead
   * of `sequences` times `capacity`. What then finds no free block is refused with CAPACITY_EXCEEDED before anything is
   * written; shared prefixes that no sequence holds make room, the least recently used first. See KvCache.fits.
   */
  budgetTokens?: number;
  /** Tokens of shared prefixes that are kept for lookup() beside the sequences; default 0, or budgetTokens where given. */
  prefixTokens?: number;
  /**
   * Which position a key has for RoPE. 'absolute', the default: the caller's affair; keys and queries come turned. 'cache':
   * that within what a query sees, sinks first (StreamingLLM); keys and queries come unturned, and `rope` turns them.
   */
  positions?: 'absolute' | 'cache';
  rope?: KeyRotation;
  /** Says which model made keys and values; snapshots of another are refused. */
  model?: string;
}

export interface LayerPlan {
  kvHeads: number;
  headDim: number;
  valueDim: number;
  ring: RingShape;
  /** Null where positions are absolute. */
  rope: KeyRotation | null;
}

export interface CachePlan {
  layers: readonly LayerPlan[];
  keyDtype: CacheDType;
  valueDtype: CacheDType;
  rotateKeys: boolean;
  rotateValues: boolean;
  sequences: number;
  /** Of all sequences and prefixes; Infinity for as many as they can have. */
  budgetTokens: number;
  prefixTokens: number;
  model: string;
}

/** Far beyond any model; each layer costs a few objects however small its storage. */
const MAX_LAYERS = 2 ** 16;
/** Slack of layers with a window of their own: a chunk of a prompt, or a long draft. */
export const LOCAL_SLACK = 256;

/** @throws GqaError INVALID_ARGUMENT, INVALID_DTYPE, NON_FINITE, OUT_OF_RANGE */
export function planCache(options: KvCacheOptions): CachePlan {
  requireOptions(options, 'options');
  const shapes = readShapes(options.layers);
  const capacity = requireInteger(options.capacity, 'options.capacity', 1);
  const dtype = requirePerPart(options.dtype ?? 'f32', 'options.dtype', requireCacheDType);
  const { k: keyDtype, v: valueDtype } = dtype;
  const rotated = options.rotate ?? { k: keyDtype === 'q4', v: valueDtype === 'q4' };
  const rotate = requirePerPart(rotated, 'options.rotate', requireBoolean);
  const quantised = blocksOf(keyDtype) !== null || blocksOf(valueDtype) !== null;
  const recent = requireInteger(options.recent ?? 0, 'options.recent', 0);
  if (recent > 0 && !quantised) {
    throw expectedError('INVALID_ARGUMENT', 'options.recent', 'a q8 or q4 cache', keyDtype);
  }
  const storage = { quantised, recent };
  const longest = longestSequence(options, shapes, capacity);
  const { budgetTokens: budget } = options;
  if (budget !== undefined) requireInteger(budget, 'options.budgetTokens', 1);
  const prefixTokens = options.prefixTokens ?? budget ?? 0;
  return {
    layers: shapes.map((shape, i) => planLayer(options, shape, i, capacity, longest, storage)),
    keyDtype,
    valueDtype,
    rotateKeys: rotate.k,
    rotateValues: rotate.v,
    sequences: requireInteger(options.sequences ?? 1, 'options.sequences', 1),
    budgetTokens: budget ?? Infinity,
    prefixTokens: requireInteger(prefixTokens, 'options.prefixTokens', 0),
    model: readModel(options.model ?? ''),
  };
}

/** For how much there are blocks, in each layer. */
export interface BlockRoom {
  /** Sequences that can live at once. */
  sequences: number;
  /** Blocks of shared prefixes at most. */
  prefixBlocks: number;
  /** Blocks of both at most; Infinity for as many as they can have. */
  budgetBlocks: number;
}

/** What all layers have in common. */
export function planBlocks({ layers, sequences, prefixTokens, budgetTokens }: CachePlan): {
  /** The largest of a layer. */
  capacity: number;
  blockTokens: number;
  room: BlockRoom;
} {
  const capacity = Math.max(...layers.map(({ ring }) => ring.capacity));
  const blockTokens = blockTokensFor(capacity, layers[0].ring.quantised);
  const budgetBlocks = Math.ceil(budgetTokens / blockTokens);
  const prefixBlocks = Math.min(budgetBlocks, Math.ceil(prefixTokens / blockTokens));
  return { capacity, blockTokens, room: { sequences, prefixBlocks, budgetBlocks } };
}

function readShapes(layers: unknown): readonly LayerShape[] {
  if (!Array.isArray(layers)) {
    const count = requireInteger(layers, 'options.layers', 1, MAX_LAYERS);
    return new Array<LayerShape>(count).fill({});
  }
  requireInteger(layers.length, 'options.layers.length', 1, MAX_LAYERS);
  layers.forEach((shape, i) => requireOptions(shape, `options.layers[${i}]`));
  return layers as LayerShape[];
}

function readModel(model: unknown): string {
  if (typeof model === 'string') return model;
  throw expectedError('INVALID_ARGUMENT', 'options.model', 'a string', describe(model));
}

/** Tokens that a sequence can have at most: what the layers without a window hold. */
function longestSequence(
  options: KvCacheOptions,
  shapes: readonly LayerShape[],
  capacity: number,
): number {
  let longest = Infinity;
  for (const shape of shapes) {
    if ((shape.window ?? options.window ?? Infinity) !== Infinity) continue;
    longest = Math.min(longest, shape.capacity ?? capacity);
  }
  return longest;
}

function planLayer(
  options: KvCacheOptions,
  shape: LayerShape,
  index: number,
  capacity: number,
  longest: number,
  storage: { quantised: boolean; recent: number },
): LayerPlan {
  const name = (field: keyof LayerShape): string =>
    shape[field] === undefined ? `options.${field}` : `options.layers[${index}].${field}`;
  const headDim = requireDim(shape.headDim ?? options.headDim, name('headDim'));
  const window = requireWindow(shape.window ?? options.window ?? Infinity, name('window'));
  const sinkTokens = shape.sinkTokens ?? options.sinkTokens ?? 0;
  requireInteger(sinkTokens, name('sinkTokens'), 0);
  const asked = { window, sinkTokens };
  const room = planRoom(options, shape, name('capacity'), asked, capacity, longest);
  const recent = Math.min(storage.recent, room.capacity);
  return {
    kvHeads: requireInteger(shape.kvHeads ?? options.kvHeads, name('kvHeads'), 1),
    headDim,
    valueDim: requireDim(shape.valueDim ?? options.valueDim ?? headDim, name('valueDim')),
    ring: { ...asked, ...room, quantised: storage.quantised, recent },
    rope: readRope(options, shape.rope ?? options.rope, name('rope'), headDim),
  };
}

function requireDim(value: unknown, argument: string): number {
  return requireInteger(value, argument, 1, MAX_HEAD_DIM);
}

/** Capacity and slack of a layer; and its window, which is none where no sequence can outgrow it. */
function planRoom(
  options: KvCacheOptions,
  shape: LayerShape,
  argument: string,
  { window, sinkTokens }: { window: number; sinkTokens: number },
  capacity: number,
  longest: number,
): { capacity: number; slack: number; window: number } {
  const slack =
    options.slack === undefined ? undefined : requireInteger(options.slack, 'options.slack', 0);
  if (shape.window !== undefined && shape.capacity === undefined && window !== Infinity) {
    const room = sinkTokens + window + (slack ?? LOCAL_SLACK);
    if (longest > room) return { capacity: room, slack: slack ?? LOCAL_SLACK, window };
    const most = longest - sinkTokens - window;
    if (most > 0) return { capacity: longest, slack: most, window };
    return { capacity: longest, slack: longest, window: Infinity };
  }
  const given = requireInteger(shape.capacity ?? capacity, argument, 1);
  if (window === Infinity) return { capacity: given, slack: given, window };
  const most = given - sinkTokens - window;
  const wanted = slack ?? Math.max(0, most);
  if (wanted > most) {
    const expected = `at least sinkTokens + window + slack = ${sinkTokens + window + wanted}`;
    throw expectedError('OUT_OF_RANGE', argument, expected, String(given));
  }
  return { capacity: given, slack: wanted, window };
}

function readRope(
  { positions = 'absolute' }: KvCacheOptions,
  rope: unknown,
  argument: string,
  headDim: number,
): KeyRotation | null {
  if (positions !== 'absolute' && positions !== 'cache') {
    const expected = "'absolute' or 'cache'";
    throw expectedError('INVALID_ARGUMENT', 'options.positions', expected, describe(positions));
  }
  if (positions === 'absolute' && rope === undefined) return null;
  const rotation = rope as Partial<KeyRotation> | null | undefined;
  if (positions === 'absolute' || typeof rotation?.apply !== 'function') {
    const expected =
      positions === 'absolute' ? "nothing unless positions are 'cache'" : 'a rotation such as Rope';
    throw expectedError('INVALID_ARGUMENT', argument, expected, describe(rope));
  }
  if (rotation.headDim !== headDim) {
    const expected = `a rotation of heads of ${headDim}`;
    throw expectedError('INVALID_SHAPE', argument, expected, `one of ${rotation.headDim}`);
  }
  return rotation as KeyRotation;
}
