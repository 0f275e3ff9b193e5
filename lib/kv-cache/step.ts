/**
 * The next tokens of several sequences on their way through the layers: keys, values and queries of all of them lie one
 * after another, [rows, heads, dim], in the order of the entries.
 */
import type { AttendStepArgs, StepPlan } from '../backend/contract';
import { requireStats } from '../core/attention-stats';
import type { AttentionStats } from '../core/attention-stats';
import type { FloatDType } from '../core/dtype';
import { expectedError } from '../core/errors';
import { fillScoreArgs } from '../core/score-options';
import { Tensor } from '../core/tensor';
import * as check from '../core/validate';
import { AppendRows } from './append';
import { reserve } from './demand';
import type { KvCache } from './kv-cache';
import type { KvLayer } from './layer';
import { turnQueries } from './positions';
import { stepTables, tailsAgree } from './step-tables';
import { growthOf } from './step-plan';
import type { PlannedEntry, PlannedStep } from './step-plan';

export type { StepEntry, StepOptions } from './step-plan';

/** Features of KvStep.attend; see AttentionFeatures. */
export interface StepFeatures {
  scale?: number;
  softcap?: number;
  alibiSlopes?: Tensor<'f32'>;
  sinkLogits?: Tensor<'f32'>;
  precision?: 'exact' | 'fast';
  /** Takes the LSE: f32 [rows, heads]. */
  lse?: Tensor<'f32'>;
  /** Takes what the weights of each row look like, [1, rows, heads]. */
  stats?: AttentionStats;
}

const NO_FLOATS = new Float32Array(0);

export class KvStep {
  /** Rows: the tokens of all entries. */
  readonly tokens: number;
  /** Absolute position of each row, for RoPE: float64 [rows]. Tokens of a tree count from the sequence's end by depth. */
  readonly positions: Float64Array;
  private readonly entries: readonly PlannedEntry[];
  /** By layer group; made when the first of its layers attends. */
  private readonly plans: (StepPlan | undefined)[] = [];
  private readonly rows = new AppendRows();

  /** @internal Use `cache.step()`. */
  constructor(
    readonly cache: KvCache,
    private readonly planned: PlannedStep,
  ) {
    this.tokens = planned.tokens;
    this.entries = planned.entries;
    this.positions = new Float64Array(planned.tokens);
    for (const { firstRow, tokens, start, tree } of planned.entries) {
      for (let i = 0; i < tokens; i++) {
        this.positions[firstRow + i] = start + (tree === null ? i : tree.depths[i]);
      }
    }
  }

  /**
   * Appends the step's tokens to one layer of every sequence, or to none where something is wrong.
   *
   * @param k [rows, kvHeads, headDim] or [1, rows, kvHeads, headDim]; v likewise, of k's dtype
   * @throws GqaError as KvSequence.append; LAYERS_UNEVEN where a sequence has changed since the step was planned;
   *   CAPACITY_EXCEEDED where others have taken since what blocks it needs
   */
  append(layer: number, k: Tensor<FloatDType>, v: Tensor<FloatDType>): void {
    const storage = this.storageOf(layer);
    const { rows, entries } = this;
    try {
      rows.read(storage, k, v);
      if (rows.tokens !== this.tokens) {
        throw check.shapeError('k', [this.tokens, storage.kvHeads, storage.headDim], k);
      }
      for (const entry of entries) {
        this.checkFresh(entry);
        const view = entry.sequence.layers[layer];
        entry.sequence.checkAppend(layer, entry.tokens, 'k');
        if (view.length !== entry.start) throw staleError();
        rows.checkStorable(view, entry.firstRow, entry.tokens);
      }
      // Those of the other layers too; once they have them, the sequences are in the middle of a step.
      const first = entries.filter(({ sequence }) => !sequence.count.underWay);
      if (first.length > 0) reserve(this.cache, first.map(growthOf), 'k');
      for (const { sequence, firstRow, tokens, tree } of entries) {
        rows.write(sequence.layers[layer], firstRow, tokens, tree?.depths);
        sequence.commitAppend(layer, tokens);
      }
    } finally {
      rows.clear();
    }
  }

  /**
   * Attention of every row over its own sequence, causally, with the window and sinks of the layer; the layer has been
   * appended.
   *
   * @param q [rows, heads, headDim] or [1, rows, heads, headDim]
   * @param out takes the result: [rows, heads, valueDim] or [1, rows, …], f32 or q's dtype; made if missing
   * @throws GqaError as attention; LAYERS_UNEVEN where the layer has not been appended, or a sequence has changed
   */
  attend<D extends FloatDType, R extends FloatDType = D>(
    layer: number,
    q: Tensor<D>,
    out?: Tensor<R>,
    features: StepFeatures = {},
  ): Tensor<R> {
    const storage = this.storageOf(layer);
    const { kvHeads, headDim, valueDim } = storage;
    const query = check.requireFloatTensor(q, 'q');
    const heads = this.checkQuery(query, kvHeads, headDim);
    for (const entry of this.entries) this.checkAppended(entry, layer);
    check.requireOptions(features, 'options');
    const stats =
      features.stats === undefined ? null : requireStats(features.stats, 'options.stats');
    const result = (out ?? Tensor.zeros([this.tokens, heads, valueDim], query.dtype)) as Tensor<R>;
    this.checkOut(result, query, heads, valueDim, features);
    const view = this.entries[0].sequence.layers[layer];
    const args: AttendStepArgs = {
      q: query.storage.data,
      sinkQ: null,
      qDtype: query.dtype,
      out: result.storage.data,
      outDtype: result.dtype,
      lse: this.lseData(features, heads),
      tokens: this.tokens,
      heads,
      kvHeads,
      headDim,
      valueDim,
      arena: storage.arena,
      tailArena: storage.tailArena,
      plan: this.planOf(layer, view),
      window: view.window,
      sinkTokens: view.sinkTokens,
      scale: 1,
      softcap: 0,
      alibiSlopes: null,
      sinkLogits: null,
      precision: 'exact',
      stats: null,
    };
    fillScoreArgs(args, features);
    if (stats !== null) args.stats = stats.fit(1, this.tokens, heads);
    if (storage.rope !== null) this.turn(view, args);
    this.cache.backend.attendStep(args);
    return result;
  }

  /**
   * Of an entry whose tokens are a tree, keeps those that lead from a root down to the last of `path`, and drops the
   * others; all layers have been appended. The kept tokens are then an ordinary run at the sequence's end.
   *
   * @param path rows within the entry, each the parent of the next; may be empty
   * @throws GqaError INVALID_ARGUMENT, OUT_OF_RANGE, SLACK_EXCEEDED, LAYERS_UNEVEN, CAPACITY_EXCEEDED (a fork came to share
   *   the tokens, and no block is free for copies), DISPOSED, BUSY; nothing has changed
   */
  keep(entry: number, path: ArrayLike<number>): void {
    const index = check.requireInteger(entry, 'entry', 0, this.entries.length - 1);
    const { sequence, tree, start, tokens } = this.entries[index];
    this.checkFresh(this.entries[index]);
    sequence.checkWhole();
    if (
      tree === null ||
      sequence.length !== start + tokens ||
      !isArrayLike(path) ||
      !tree.isPath(path)
    ) {
      const expected = 'rows of a tree that was appended, from a root down,';
      throw expectedError('INVALID_ARGUMENT', 'path', expected, check.describe(path));
    }
    sequence.checkCut(start + path.length);
    const from = Int32Array.from(path, (row) => row);
    sequence.keepRows(start, from);
  }

  private storageOf(layer: number): KvCache['storage'][number] {
    this.cache.checkUsable();
    return this.cache.storage[check.requireInteger(layer, 'layer', 0, this.cache.layers - 1)];
  }

  /** The sequence is usable, and was not cut since the step was planned. */
  private checkFresh({ sequence, cuts }: PlannedEntry): void {
    sequence.checkUsable('sequence');
    if (sequence.cuts !== cuts) throw staleError();
  }

  private checkAppended(entry: PlannedEntry, layer: number): void {
    this.checkFresh(entry);
    const { sequence, start, tokens } = entry;
    if (sequence.layers[layer].length !== start + tokens) throw staleError();
  }

  /** Query heads of q. */
  private checkQuery(q: Tensor<FloatDType>, kvHeads: number, headDim: number): number {
    const { shape } = q;
    const rank = shape.length;
    const heads = shape[rank - 2];
    const rows = rank === 3 || (rank === 4 && shape[0] === 1) ? shape[rank - 3] : -1;
    if (rows !== this.tokens || shape[rank - 1] !== headDim || !(heads > 0)) {
      throw check.shapeError('q', [this.tokens, 'heads', headDim], q);
    }
    if (heads % kvHeads !== 0) {
      const expected = `query heads that are a multiple of the ${kvHeads} KV heads`;
      throw expectedError('HEADS_NOT_DIVISIBLE', 'q', expected, `${heads} heads`);
    }
    return heads;
  }

  private checkOut(
    out: unknown,
    q: Tensor<FloatDType>,
    heads: number,
    valueDim: number,
    { alibiSlopes, sinkLogits, lse }: StepFeatures,
  ): void {
    const tensor = check.requireFloatTensor(out, 'out');
    const { shape } = tensor;
    const first = shape.length - 3;
    const fits =
      (first === 0 || (first === 1 && shape[0] === 1)) &&
      shape[first] === this.tokens &&
      shape[first + 1] === heads &&
      shape[first + 2] === valueDim;
    if (!fits) {
      throw check.shapeError('out', [this.tokens, heads, valueDim], tensor);
    }
    if (tensor.dtype !== 'f32' && tensor.dtype !== q.dtype) {
      const expected = q.dtype === 'f32' ? 'dtype f32' : `dtype f32 or ${q.dtype}`;
      throw expectedError('INVALID_DTYPE', 'out', expected, tensor.dtype);
    }
    check.checkNoOverlap(tensor, q, 'out', 'q');
    const apart = (input: unknown, name: string): void => {
      if (check.isTensor(input)) check.checkNoOverlap(tensor, input, 'out', name);
    };
    apart(alibiSlopes, 'options.alibiSlopes');
    apart(sinkLogits, 'options.sinkLogits');
    apart(lse, 'options.lse');
  }

  private lseData({ lse }: StepFeatures, heads: number): Float32Array | null {
    if (lse === undefined) return null;
    const tensor = check.requireTensorOf(lse, 'f32', 'options.lse');
    const { shape } = tensor;
    if (shape.length !== 2 || shape[0] !== this.tokens || shape[1] !== heads) {
      throw check.shapeError('options.lse', [this.tokens, heads], tensor);
    }
    return tensor.storage.data;
  }

  private planOf(layer: number, { ring }: KvLayer): StepPlan {
    const group = this.cache.groups.indexOf(this.cache.storage[layer].group);
    const layerOf = ({ sequence }: PlannedEntry): KvLayer => sequence.layers[layer];
    const made = this.plans[group];
    if (made !== undefined && tailsAgree(made, this.entries, layerOf)) return made;
    return (this.plans[group] = stepTables(this.planned, ring.geometry, layerOf));
  }

  /** Queries of a cache that counts positions itself: copies, turned. */
  private turn(layer: KvLayer, args: AttendStepArgs): void {
    const { tokens, heads, headDim, q: from, qDtype: fromDtype } = args;
    const count = tokens * heads * headDim;
    const to = new Float32Array(count);
    this.cache.backend.convert({ from, fromDtype, to, toDtype: 'f32', count });
    const { window, sinkTokens } = layer;
    const rope = layer.storage.rope!;
    const positionOf = (row: number): number => this.positions[row];
    args.q = to;
    args.sinkQ = turnQueries(
      { rope, q: to, tokens, heads, window, sinkTokens, positionOf },
      NO_FLOATS,
    );
    args.qDtype = 'f32';
  }
}

function isArrayLike(value: unknown): value is ArrayLike<number> {
  return typeof value === 'object' && value !== null && 'length' in value;
}

function staleError() {
  const expected = 'sequences as they were when the step was planned, and the layer appended,';
  return expectedError('LAYERS_UNEVEN', 'layer', expected, 'others');
}
