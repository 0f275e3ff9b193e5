/** A sequence of the mirror: what it may do, and naive attention over what it has. */
import type { GqaErrorCode } from '../../lib';
import { turn, type Row } from './cache-contents';
import {
  keepOf,
  MirrorLayer,
  startAfter,
  type CacheRules,
  type LayerRules,
  type Token,
} from './mirror-layer';

const { exp, floor, log, max, min, sqrt } = Math;

export interface SeenOptions {
  causal?: boolean;
  window?: number;
  sinkTokens?: number;
}

/** A row of queries: its position, and its place among the sequence's tokens. */
interface QueryRow {
  position: number;
  index: number;
  /** Where its step began, if that was a tree of drafts, and which of its tokens the row sees. */
  tree: { start: number; seen: readonly number[] } | null;
}

export interface Expected {
  out: Float64Array;
  lse: Float64Array;
  largestScore: number;
}

export class MirrorSequence {
  tokens: Token[] = [];
  readonly layers: MirrorLayer[];
  /** Tokens that every layer has. */
  length = 0;
  /** The largest length reached. */
  peak = 0;

  constructor(
    readonly cache: CacheRules,
    readonly memos: readonly Map<number, Row>[],
  ) {
    this.layers = cache.layers.map((rules, i) => new MirrorLayer(cache, rules, i, memos[i]));
  }

  clone(): MirrorSequence {
    const copy = new MirrorSequence(this.cache, this.memos);
    copy.tokens = this.tokens.slice();
    copy.layers.forEach((_, i) => (copy.layers[i] = this.layers[i].clone()));
    copy.length = this.length;
    copy.peak = this.peak;
    return copy;
  }

  /** The longest that layers have got in the step under way. */
  get reached(): number {
    return max(...this.layers.map(({ length }) => length));
  }

  get start(): number {
    return max(...this.cache.layers.map((rules) => startAfter(rules, this.peak)));
  }

  /** Tokens that still fit. */
  get room(): number {
    const full = this.cache.layers.filter(({ window }) => window === Infinity);
    return min(...full.map(({ capacity }) => capacity - this.length));
  }

  /** Tokens that may be appended so that each finds all keys that it sees. */
  get longestChunk(): number {
    const most = this.cache.layers.map((rules) =>
      max(rules.capacity - this.length, keepOf(rules) - rules.window + 1),
    );
    return min(...most);
  }

  /** Takes note of tokens that the layers then append one by one; `commit` ends the step. */
  begin(tokens: readonly Token[]): void {
    this.tokens.push(...tokens);
  }

  commit(): void {
    this.length = this.tokens.length;
    this.peak = max(this.peak, this.length);
  }

  append(tokens: readonly Token[]): void {
    this.begin(tokens);
    for (const layer of this.layers) layer.append(tokens);
    this.commit();
  }

  truncateError(length: number): GqaErrorCode | undefined {
    if (length > this.length) return 'OUT_OF_RANGE';
    const peak = max(this.peak, this.reached);
    const refused = this.cache.layers.some(
      (rules) => startAfter(rules, peak) > 0 && length < peak - rules.slack,
    );
    return refused ? 'SLACK_EXCEEDED' : undefined;
  }

  truncate(length: number): void {
    this.peak = max(this.peak, this.reached);
    for (const layer of this.layers) layer.truncate(length);
    this.tokens.length = length;
    this.length = length;
  }

  /** Of a tree of drafts that began at `start`, these tokens stay. */
  keep(start: number, tokens: readonly Token[]): void {
    this.truncate(start);
    this.append(tokens);
  }

  /** Begins with whole blocks of a shared prefix. */
  adopt(tokens: readonly Token[]): void {
    this.tokens = tokens.slice();
    for (const layer of this.layers) layer.adopt(tokens);
    this.commit();
  }

  attendError(layer: number, queries: number, options: SeenOptions): GqaErrorCode | undefined {
    const { rules, length } = this.layers[layer];
    const { window = rules.window, sinkTokens = rules.sinkTokens } = options;
    const windowed = rules.window !== Infinity;
    // An option may only narrow what the cache holds.
    if (window > rules.window || (windowed && sinkTokens > rules.sinkTokens)) {
      return 'INVALID_ARGUMENT';
    }
    const start = startAfter(rules, max(this.peak, length));
    for (let i = 0; i < queries; i++) {
      const position = length - queries + i;
      const newest = options.causal === false ? length - 1 : position;
      const oldest = max(0, position - window + 1, rules.sinkTokens);
      if (oldest <= newest && oldest < start) return 'POSITION_EVICTED';
    }
    return undefined;
  }

  /** Attention of the newest `queries` tokens of a layer, q [queries, heads, headDim]. */
  attend(layer: number, q: Float64Array, queries: number, options: SeenOptions = {}): Expected {
    const { length } = this.layers[layer];
    const rows = Array.from({ length: queries }, (_, i): QueryRow => {
      const index = length - queries + i;
      return { position: index, index, tree: null };
    });
    return this.attendRows(layer, q, rows, options);
  }

  /** The same of a tree of drafts, the newest tokens; `parents` are rows of it, -1 for none. */
  attendTree(layer: number, q: Float64Array, parents: readonly number[]): Expected {
    const start = this.layers[layer].length - parents.length;
    const rows = parents.map((_, row): QueryRow => {
      const seen: number[] = [];
      for (let at = row; at >= 0; at = parents[at]) seen.unshift(start + at);
      const { position } = this.tokens[start + row];
      return { position, index: start + row, tree: { start, seen } };
    });
    return this.attendRows(layer, q, rows, {});
  }

  /** Naive attention, float64, row by row. */
  private attendRows(
    layer: number,
    q: Float64Array,
    rows: readonly QueryRow[],
    options: SeenOptions,
  ): Expected {
    const { rules } = this.layers[layer];
    const { headDim, valueDim, kvHeads } = rules;
    const heads = rows.length === 0 ? 0 : q.length / (rows.length * headDim);
    const out = new Float64Array(rows.length * heads * valueDim);
    const lse = new Float64Array(rows.length * heads).fill(-Infinity);
    const range = this.layers[layer].floatRange();
    const { window = rules.window, sinkTokens = rules.sinkTokens } = options;
    const view = { ...rules, window, sinkTokens };
    let largestScore = 0;
    rows.forEach((row, i) => {
      const seen = this.seenBy(row, layer, options);
      if (seen.length === 0) return;
      const pairs = seen.map((j) => this.layers[layer].rowAt(j, this.tokens[j].position, range));
      const keys = this.keysFor(row, view, seen, pairs);
      for (let h = 0; h < heads; h++) {
        const at = i * heads + h;
        const query = q.slice(at * headDim, (at + 1) * headDim);
        this.turnQuery(query, row, view);
        const head = floor(h / (heads / kvHeads));
        const scores = keys.map((key) => {
          let dot = 0;
          for (let d = 0; d < headDim; d++) dot += query[d] * key[head * headDim + d];
          return dot / sqrt(headDim);
        });
        const top = max(...scores);
        let sum = 0;
        for (const score of scores) {
          sum += exp(score - top);
          largestScore = max(largestScore, score, -score);
        }
        lse[at] = top + log(sum);
        scores.forEach((score, n) => {
          const weight = exp(score - top) / sum;
          const value = pairs[n].v;
          for (let d = 0; d < valueDim; d++) {
            out[at * valueDim + d] += weight * value[head * valueDim + d];
          }
        });
      }
    });
    return { out, lse, largestScore };
  }

  /** Places of the tokens that a row sees, in their order. */
  private seenBy(
    { position, index, tree }: QueryRow,
    layer: number,
    options: SeenOptions,
  ): number[] {
    const { rules, length } = this.layers[layer];
    const { window = rules.window, sinkTokens = rules.sinkTokens } = options;
    const seen: number[] = [];
    const last = tree !== null ? tree.start - 1 : options.causal === false ? length - 1 : index;
    const oldest = max(0, position - window + 1);
    for (let j = 0; j < min(sinkTokens, oldest, last + 1); j++) seen.push(j);
    for (let j = oldest; j <= last; j++) seen.push(j);
    for (const j of tree?.seen ?? []) {
      const { position: at } = this.tokens[j];
      if (at >= oldest || at < sinkTokens) seen.push(j);
    }
    return seen;
  }

  /**
   * Keys as they meet a row's query. A cache that counts positions within itself numbers what the row sees, sinks first,
   * and turns each key to its number.
   */
  private keysFor(
    row: QueryRow,
    { sinkTokens, window, headDim, kvHeads }: LayerRules,
    seen: readonly number[],
    pairs: readonly Row[],
  ): Float64Array[] {
    if (!this.cache.storage.turned) return pairs.map(({ k }) => k);
    const skipped = max(0, row.position - window + 1 - sinkTokens);
    return pairs.map(({ k }, n) => {
      const key = k.slice();
      const { position } = this.tokens[seen[n]];
      const slot = position < sinkTokens ? position : position - skipped;
      for (let head = 0; head < kvHeads; head++) turn(key, head * headDim, headDim, slot);
      return key;
    });
  }

  private turnQuery(query: Float64Array, { position }: QueryRow, rules: LayerRules): void {
    if (!this.cache.storage.turned) return;
    const slot = min(position, rules.sinkTokens + rules.window - 1);
    turn(query, 0, rules.headDim, slot);
  }
}
