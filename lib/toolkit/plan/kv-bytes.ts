/** What keys and values take: as textbooks count them, and as this package's cache holds them. */
import { blocksOf, DTYPE_BYTES, type CacheDType } from '../../core/dtype';
import { cacheFootprint } from '../../kv-cache/footprint';
import { MAX_BLOCK_TOKENS } from '../../kv-cache/geometry';
import { LOCAL_SLACK, type KvCacheOptions, type LayerShape } from '../../kv-cache/options';
import type { ModelShape } from './shape';

/** How keys and values are stored. */
export interface KvDType {
  k: CacheDType;
  v: CacheDType;
}

export interface KvLoad {
  /** Tokens of each sequence. */
  context: number;
  /** Sequences. */
  batch: number;
  /** First tokens that all of them have in common. */
  sharedPrefix: number;
}

export interface KvBytes {
  dtype: KvDType;
  /** Of one more token in all layers: scales and minimums included. */
  bytesPerToken: number;
  /** 2 L Hkv D bits / 8 */
  textbookBytesPerToken: number;
  /** What a KvCache of one such sequence allocates: whole blocks, windowed layers' rings with slack, float tails. */
  sequenceBytes: number;
  /** Each layer as far as its window. */
  textbookSequenceBytes: number;
  /** What a KvCache of the batch allocates: every sequence could part from the others at once. */
  batchBytes: number;
  /** The shared prefix once. */
  textbookBatchBytes: number;
  /** What of the allocated bytes is in use when all sequences are full: blocks of the prefix once. */
  heldBytes: number;
  /** What a decode step of the batch reads: in each layer what its queries see, blocks of the prefix once. */
  readBytes: number;
}

/** Bits of a number as textbooks count them. */
const PLAIN_BITS: Readonly<Record<CacheDType, number>> = {
  f32: 32,
  f16: 16,
  bf16: 16,
  q8: 8,
  q4: 4,
};

/** A cache drops what a window has passed once the slack is passed too; undefined: not within this context. */
export function passedWindow(window: number, context: number): number | undefined {
  return window + LOCAL_SLACK < context ? window : undefined;
}

/** Options of the KvCache that holds such a load. */
export function cacheOptions(shape: ModelShape, dtype: KvDType, load: KvLoad): KvCacheOptions {
  const layers = shape.layerKvHeads.map((kvHeads, layer): LayerShape => {
    const window = passedWindow(shape.layerWindows[layer], load.context);
    return window === undefined ? { kvHeads } : { kvHeads, window };
  });
  return {
    layers,
    headDim: shape.headDim,
    capacity: load.context,
    dtype,
    sequences: load.batch,
    // Prefixes are shared where there is somebody to share them with.
    prefixTokens: load.batch > 1 ? load.sharedPrefix : 0,
  };
}

function isQuantised({ k, v }: KvDType): boolean {
  return blocksOf(k) !== null || blocksOf(v) !== null;
}

function plainBytes(shape: ModelShape, { k, v }: KvDType, kvHeads: number): number {
  return (kvHeads * shape.headDim * (PLAIN_BITS[k] + PLAIN_BITS[v])) / 8;
}

/** In a quantised cache the newest block is read in floats. */
function tailBytes(shape: ModelShape, { k, v }: KvDType, kvHeads: number): number {
  const bytes = (dtype: CacheDType): number =>
    dtype === 'q8' || dtype === 'q4' ? DTYPE_BYTES.f16 : DTYPE_BYTES[dtype];
  return kvHeads * shape.headDim * (bytes(k) + bytes(v));
}

/** Of the keys that a layer's query sees behind the first `from` positions, the newest one at the end of `tokens`. */
function seen(window: number, tokens: number, from: number): number {
  return Math.min(window, tokens - from);
}

interface LayerBytes {
  kvHeads: number;
  window: number;
  perToken: number;
}

/** What attention of one sequence reads of its keys and values from position `from` on. */
function attentionReads(
  shape: ModelShape,
  dtype: KvDType,
  layers: readonly LayerBytes[],
  tokens: number,
  from: number,
): number {
  const newest = isQuantised(dtype) ? ((tokens - 1) % MAX_BLOCK_TOKENS) + 1 : 0;
  return layers.reduce((sum, { kvHeads, window, perToken }) => {
    const keys = seen(window, tokens, from);
    const tail = Math.min(newest, keys);
    return sum + (keys - tail) * perToken + tail * tailBytes(shape, dtype, kvHeads);
  }, 0);
}

/** Leading tokens that all sequences hold in the same blocks: whole ones, before the newest token. */
function sharedTokens({ context, batch, sharedPrefix }: KvLoad): number {
  if (batch === 1) return 0;
  const shared = Math.min(sharedPrefix, context - 1);
  return Math.floor(shared / MAX_BLOCK_TOKENS) * MAX_BLOCK_TOKENS;
}

/** Bytes per token that are held as long as the sequence lives; a window that has passed the prefix holds none of it. */
function keptPerToken(layers: readonly LayerBytes[], context: number): number {
  const kept = layers.filter(({ window }) => passedWindow(window, context) === undefined);
  return kept.reduce((sum, { perToken }) => sum + perToken, 0);
}

/** @throws GqaError OUT_OF_RANGE where it is beyond what any cache can hold */
export function kvBytes(shape: ModelShape, dtype: KvDType, load: KvLoad): KvBytes {
  const { context, batch } = load;
  const single = cacheFootprint(cacheOptions(shape, dtype, { context, batch: 1, sharedPrefix: 0 }));
  const layers = single.layers.map(({ bytesPerToken }, layer) => ({
    kvHeads: shape.layerKvHeads[layer],
    window: shape.layerWindows[layer],
    perToken: bytesPerToken,
  }));
  const shared = sharedTokens(load);
  const textbook = (from: number): number =>
    layers.reduce(
      (sum, { kvHeads, window }) =>
        sum + plainBytes(shape, dtype, kvHeads) * seen(window, context, from),
      0,
    );
  const read = (from: number): number => attentionReads(shape, dtype, layers, context, from);
  return {
    dtype,
    bytesPerToken: single.bytesPerToken,
    textbookBytesPerToken: layers.reduce(
      (sum, { kvHeads }) => sum + plainBytes(shape, dtype, kvHeads),
      0,
    ),
    sequenceBytes: single.bytes,
    textbookSequenceBytes: textbook(0),
    batchBytes: cacheFootprint(cacheOptions(shape, dtype, load)).bytes,
    textbookBatchBytes: textbook(0) + (batch - 1) * textbook(Math.min(load.sharedPrefix, context)),
    heldBytes: batch * single.bytes - (batch - 1) * shared * keptPerToken(layers, context),
    readBytes: read(0) + (batch - 1) * read(shared),
  };
}
