/**
 * What the weights of each row of an attention call look like, summed up by its softmax: no second pass over the keys.
 *
 * With s_j the final scores of the n keys a row sees (after scale, softcap, bias, ALiBi and masks; natural units),
 * p_j = exp(s_j) / sum exp(s), and P_j the same with the sink logit, where there is one, in the sum; before dropout:
 *   entropy       H / ln n of [0, 1], H = -sum p ln p; 0 where n <= 1. 1 is uniform, 0 a single key.
 *   sinkMass      sum of P_j over the first `sinkTokens` positions, and the sink logit's own share
 *   recentMass    sum of P_j over the newest `recentTokens` positions up to the row's own (and any after it)
 *   maxLogit      max s_j; -Infinity where no key is visible
 *   visible       n
 */
import { expectedError } from './errors';
import { DISPOSED, IDLE, TensorStorage } from './storage';
import { disposeSymbol } from './tensor';
import { allocate, describe, requireInteger, requireOptions, stateError } from './validate';

export interface AttentionStatsOptions {
  /** First positions whose weight is sinkMass. Default 4. */
  sinkTokens?: number;
  /** Newest positions, the row's own included, whose weight is recentMass. Default 64. */
  recentTokens?: number;
}

/** The planes of the buffer, in the order of Statistic in backend/contract-cache.ts. */
const PLANES = 5;
const ENTROPY = 0;
const SINK_MASS = 1;
const RECENT_MASS = 2;
const MAX_LOGIT = 3;
const VISIBLE = 4;
const BYTES = 4;

/** StatisticsArgs of backend/contract-cache.ts. */
export interface StatsTarget {
  data: Float32Array;
  rows: number;
  firstRow: number;
  sinkTokens: number;
  recentTokens: number;
}

/**
 * Takes the statistics of one call after another: `attention(q, k, v, { stats })`. Owns its memory, which grows to the
 * largest call and is used again, so that a loop of calls of one shape allocates nothing. What an accessor returned is
 * overwritten by the next call.
 */
export class AttentionStats {
  readonly sinkTokens: number;
  readonly recentTokens: number;
  /** @internal State and memory, as a tensor's. */
  readonly memory = new TensorStorage<'f32'>(new Float32Array(0));
  /** @internal What the backend writes to; see fit. */
  readonly target: StatsTarget;
  private dims: readonly [number, number, number] = [0, 0, 0];
  /** Accessors' views, made when first asked for. */
  private views: (Float32Array | undefined)[] = [];
  private contexts: Float32Array = new Float32Array(0);

  /** @throws GqaError INVALID_ARGUMENT, OUT_OF_RANGE */
  constructor(options: AttentionStatsOptions = {}) {
    requireOptions(options, 'options');
    const { sinkTokens = 4, recentTokens = 64 } = options;
    this.sinkTokens = requireInteger(sinkTokens, 'options.sinkTokens', 0);
    this.recentTokens = requireInteger(recentTokens, 'options.recentTokens', 0);
    this.target = {
      data: this.memory.data,
      rows: 0,
      firstRow: 0,
      sinkTokens: this.sinkTokens,
      recentTokens: this.recentTokens,
    };
  }

  /** [batch, query tokens, query heads] of the latest call, and so of every accessor; [0, 0, 0] before the first. */
  get shape(): readonly [batch: number, tokens: number, heads: number] {
    return this.dims;
  }

  /** H / ln n. [B, Tq, Hq] @throws GqaError DISPOSED, BUSY */
  get entropy(): Float32Array {
    return this.plane(ENTROPY);
  }

  /** [B, Tq, Hq] @throws GqaError DISPOSED, BUSY */
  get sinkMass(): Float32Array {
    return this.plane(SINK_MASS);
  }

  /** [B, Tq, Hq] @throws GqaError DISPOSED, BUSY */
  get recentMass(): Float32Array {
    return this.plane(RECENT_MASS);
  }

  /** [B, Tq, Hq] @throws GqaError DISPOSED, BUSY */
  get maxLogit(): Float32Array {
    return this.plane(MAX_LOGIT);
  }

  /** [B, Tq, Hq] @throws GqaError DISPOSED, BUSY */
  get visible(): Float32Array {
    return this.plane(VISIBLE);
  }

  /**
   * exp(H): over so many keys a uniform row would be as spread out; 0 where no key is visible. Computed when asked for.
   * [B, Tq, Hq] @throws GqaError DISPOSED, BUSY
   */
  get effectiveContext(): Float32Array {
    const { entropy, visible } = this;
    if (this.contexts.length !== entropy.length) this.contexts = new Float32Array(entropy.length);
    for (let i = 0; i < entropy.length; i++) {
      this.contexts[i] = effectiveContext(entropy[i], visible[i]);
    }
    return this.contexts;
  }

  /** Lets go of the memory; a second call does nothing. @throws GqaError BUSY */
  dispose(): void {
    const { memory } = this;
    if (memory.state === DISPOSED) return;
    this.checkUsable('stats');
    memory.dispose(new Float32Array(0));
    this.target.data = memory.data;
    this.contexts = memory.data;
    this.views = [];
  }

  [disposeSymbol](): void {
    this.dispose();
  }

  /** @internal @throws GqaError DISPOSED, BUSY */
  checkUsable(argument: string): void {
    const { state } = this.memory;
    if (state !== IDLE) throw stateError(state, argument, 'set of statistics');
  }

  /** @internal Makes room for a call's rows: what the backend writes to. @throws GqaError OUT_OF_MEMORY */
  fit(batch: number, tokens: number, heads: number): StatsTarget {
    const { target, memory, dims } = this;
    const rows = batch * tokens * heads;
    if (memory.data.length < PLANES * rows) {
      const bytes = PLANES * rows * BYTES;
      memory.replace(allocate(() => new Float32Array(PLANES * rows), bytes, 'options.stats'));
      this.views = [];
    }
    if (dims[0] !== batch || dims[1] !== tokens || dims[2] !== heads) {
      this.dims = [batch, tokens, heads];
      this.views = [];
    }
    target.data = memory.data;
    target.rows = rows;
    return target;
  }

  private plane(index: number): Float32Array {
    this.checkUsable('stats');
    const { rows } = this.target;
    return (this.views[index] ??= this.memory.data.subarray(index * rows, (index + 1) * rows));
  }
}

/** exp(H) from normalised entropy and the number of visible keys. */
export function effectiveContext(entropy: number, visible: number): number {
  return visible === 0 ? 0 : Math.exp(entropy * Math.log(visible));
}

/** @internal Zeros, and -Infinity for the maximum: what rows say that see no key. */
export function writeEmptyStats({ data, rows, firstRow }: StatsTarget, count: number): void {
  for (let plane = 0; plane < PLANES; plane++) {
    const from = plane * rows + firstRow;
    data.fill(plane === MAX_LOGIT ? -Infinity : 0, from, from + count);
  }
}

/** @internal Rows from `firstRow` on of a larger call's, which has made room for them: for modules that cut calls. */
export class AttentionStatsPart extends AttentionStats {
  constructor(
    private readonly whole: AttentionStats,
    private readonly firstRow: number,
  ) {
    super({ sinkTokens: whole.sinkTokens, recentTokens: whole.recentTokens });
  }

  override fit(): StatsTarget {
    return { ...this.whole.target, firstRow: this.firstRow };
  }
}

/** @throws GqaError INVALID_ARGUMENT, DISPOSED, BUSY */
export function requireStats(value: unknown, argument: string): AttentionStats {
  if (!(value instanceof AttentionStats)) {
    throw expectedError('INVALID_ARGUMENT', argument, 'an AttentionStats', describe(value));
  }
  value.checkUsable(argument);
  return value;
}
