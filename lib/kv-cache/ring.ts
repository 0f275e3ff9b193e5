/**
 * The bookkeeping of one sequence: how many tokens it has, which positions it still holds and in which block each lies.
 * Pure arithmetic, apart from the storage.
 *
 * Held are the sink tokens [0, sinkTokens) and the run [start, length). Once the sequence has outgrown the capacity,
 * start = peak - keep, where peak is the largest length reached and keep = capacity - sinkTokens; before, start = 0.
 * Ordinal o is the block of positions [o * blockTokens, (o + 1) * blockTokens). Ordinals below sinkBlocks have a slot of
 * their own; the others take turns on ringBlocks slots. The newest `keep` positions touch at most
 * ceil((keep - 1) / blockTokens) + 1 <= ringBlocks consecutive ordinals, so no two of them share a slot.
 */
import type { BlockTable } from '../backend/contract';
import { expectedError } from '../core/errors';
import type { GqaError } from '../core/errors';
import { requireInteger } from '../core/validate';

export interface RingGeometry {
  layers: number;
  capacity: number;
  /** Infinity for none; then nothing is ever evicted. */
  window: number;
  sinkTokens: number;
  /** Tokens that can be rolled back after something was evicted. */
  slack: number;
  /** Newest tokens held, whatever the sinks. */
  keep: number;
  blockTokens: number;
  sinkBlocks: number;
  ringBlocks: number;
}

/** Token slots of a block at most, and what their number is a multiple of: see ArenaLayout. */
const MAX_BLOCK_TOKENS = 64;
const BLOCK_TOKENS_STEP = 16;

export function planRing(
  layers: number,
  capacity: number,
  window: number,
  sinkTokens: number,
  slack: number,
): RingGeometry {
  const rounded = Math.ceil(capacity / BLOCK_TOKENS_STEP) * BLOCK_TOKENS_STEP;
  const blockTokens = Math.min(MAX_BLOCK_TOKENS, rounded);
  const windowed = window !== Infinity;
  const keep = windowed ? capacity - sinkTokens : capacity;
  const sinkBlocks = windowed ? Math.ceil(sinkTokens / blockTokens) : 0;
  const ringBlocks = Math.ceil(keep / blockTokens) + (windowed ? 1 : 0);
  return {
    layers,
    capacity,
    window,
    sinkTokens,
    slack,
    keep,
    blockTokens,
    sinkBlocks,
    ringBlocks,
  };
}

/** No block yet in a slot. */
export const UNASSIGNED = -1;
const NO_STEP = -1;

export class TokenRing {
  readonly table: BlockTable;
  /** Tokens that every layer has appended. */
  length = 0;
  /** Largest length reached, appends of dropped steps included. */
  private peak = 0;
  /** Tokens per layer of the step under way. */
  private stepTokens = NO_STEP;
  private layersLeft: number;
  /** 1 where a layer has appended in this step. */
  private readonly appended: Uint8Array;

  constructor(readonly geometry: RingGeometry) {
    const { layers, sinkBlocks, ringBlocks } = geometry;
    const ids = new Int32Array(sinkBlocks + ringBlocks).fill(UNASSIGNED);
    this.table = { ids, sinkBlocks, ringBlocks };
    this.layersLeft = layers;
    this.appended = new Uint8Array(layers);
  }

  /** Oldest position of the recent run still held by every layer; 0 until something was evicted. */
  get start(): number {
    return this.startAfter(this.peak);
  }

  /** Tokens of one layer: ahead of `length` where it has already appended in this step. */
  layerLength(layer: number): number {
    return this.appended[layer] === 1 ? this.length + this.stepTokens : this.length;
  }

  /** `start` as it is, or will be, for a layer of this length. */
  startAt(layerLength: number): number {
    return this.startAfter(layerLength > this.peak ? layerLength : this.peak);
  }

  private startAfter(peak: number): number {
    const { window, capacity, keep } = this.geometry;
    return window !== Infinity && peak > capacity ? peak - keep : 0;
  }

  /** Slot in the table of the block that holds a position. */
  slotOf(position: number): number {
    const { sinkBlocks, ringBlocks, blockTokens } = this.geometry;
    const ordinal = Math.floor(position / blockTokens);
    return ordinal < sinkBlocks ? ordinal : sinkBlocks + ((ordinal - sinkBlocks) % ringBlocks);
  }

  /** @throws GqaError LAYERS_UNEVEN, CAPACITY_EXCEEDED. */
  checkAppend(layer: number, tokens: number): void {
    if (this.appended[layer] === 1) {
      const expected = `a layer of ${this.layersLeft} that have not appended in this step`;
      throw expectedError('LAYERS_UNEVEN', 'layer', expected, String(layer));
    }
    if (this.stepTokens !== NO_STEP && tokens !== this.stepTokens) {
      const expected = `${this.stepTokens} tokens, as the other layers in this step,`;
      throw expectedError('LAYERS_UNEVEN', 'k', expected, String(tokens));
    }
    const { window, capacity } = this.geometry;
    if (window === Infinity && tokens > capacity - this.length) {
      const expected = `at most ${capacity - this.length} tokens, what is left of the capacity,`;
      throw expectedError('CAPACITY_EXCEEDED', 'k', expected, String(tokens));
    }
  }

  /** Takes note of a layer's append; after the last layer the sequence is longer. */
  commitAppend(layer: number, tokens: number): void {
    this.stepTokens = tokens;
    this.appended[layer] = 1;
    if (--this.layersLeft > 0) return;
    this.length += tokens;
    if (this.length > this.peak) this.peak = this.length;
    this.endStep();
  }

  private endStep(): void {
    this.stepTokens = NO_STEP;
    this.layersLeft = this.geometry.layers;
    this.appended.fill(0);
  }

  /**
   * Drops the tokens from position `length` on, and the step under way.
   *
   * @throws GqaError OUT_OF_RANGE, SLACK_EXCEEDED.
   */
  truncate(length: number): void {
    requireInteger(length, 'length', 0, this.length);
    const underWay = this.stepTokens === NO_STEP ? 0 : this.stepTokens;
    const peak = Math.max(this.peak, this.length + underWay);
    const start = this.startAfter(peak);
    const shortest = start === 0 ? 0 : peak - this.geometry.slack;
    if (length < shortest) throw slackError(length, shortest, start);
    this.peak = peak;
    this.length = length;
    this.endStep();
  }
}

function slackError(length: number, shortest: number, start: number): GqaError {
  const expected = `a length of at least ${shortest} (the oldest position still held is ${start})`;
  return expectedError('SLACK_EXCEEDED', 'length', expected, String(length));
}
