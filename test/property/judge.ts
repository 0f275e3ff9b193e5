/** What is asked of a cache and of its mirror, and whether the answers agree. */
import { GqaError, KvCache, Tensor } from '../../lib';
import type { FloatDType, GqaErrorCode, KvSequence } from '../../lib';
import { dataOf, historyOf, mix, numbersOf, seedOf } from '../support/cache-contents';
import type { Row } from '../support/cache-contents';
import type { CacheRules, Token } from '../support/mirror-layer';
import { MirrorSequence, type Expected } from '../support/mirror-sequence';
import { decodeSmall } from '../support/numbers';
import { isQuantised, type CacheName } from '../support/quantise';
import { attentionTolerance, coarser, lseTolerance } from '../tolerances';
import { optionsOf, rulesOf } from './cache-rules';
import type { Plan } from './programs';

const { abs, max } = Math;

/** Query heads of a KV head. */
export const GROUP = 2;
/** Before any token. */
export const FIRST_HISTORY = 17;

/** A live sequence and its mirror. */
export interface Actor {
  sequence: KvSequence;
  mirror: MirrorSequence;
  /** It holds tokens of a tree as if they were a chain: no text says what they are. */
  jumbled: boolean;
}

export class Judge {
  readonly rules: CacheRules;
  readonly cache: KvCache;
  readonly actors: Actor[] = [];
  private readonly memos: Map<number, Row>[];
  private queries = 0;

  constructor(readonly plan: Plan) {
    this.rules = rulesOf(plan);
    this.cache = new KvCache(optionsOf(plan, this.rules));
    this.memos = this.rules.layers.map(() => new Map<number, Row>());
  }

  emptyMirror(): MirrorSequence {
    return new MirrorSequence(this.rules, this.memos);
  }

  add(sequence: KvSequence, mirror: MirrorSequence, jumbled = false): void {
    this.actors.push({ sequence, mirror, jumbled });
  }

  /** What a new sequence is refused with. */
  fullError(): GqaErrorCode | undefined {
    return this.actors.length === this.plan.sequences ? 'CAPACITY_EXCEEDED' : undefined;
  }

  /** Runs the action, which must throw an error of this code, or none. */
  expecting(code: GqaErrorCode | undefined, action: () => void): void {
    if (code === undefined) return action();
    try {
      action();
    } catch (error) {
      if (error instanceof GqaError && error.code === code) return;
      throw error;
    }
    throw new Error(`nothing was thrown, not ${code}`);
  }

  /** The next tokens of a text after those of a sequence. */
  nextTokens(mirror: MirrorSequence, count: number, id: number): Token[] {
    const tokens: Token[] = [];
    let history = mirror.tokens.at(-1)?.history ?? FIRST_HISTORY;
    for (let i = 0; i < count; i++) {
      history = historyOf(history, id);
      tokens.push({ id, history, position: mirror.tokens.length + i });
    }
    return tokens;
  }

  tensorsOf(layer: number, tokens: readonly Token[]) {
    const { kvHeads, headDim, valueDim } = this.rules.layers[layer];
    return {
      k: this.rowsOf(layer, tokens, 'k', [tokens.length, kvHeads, headDim]),
      v: this.rowsOf(layer, tokens, 'v', [tokens.length, kvHeads, valueDim]),
    };
  }

  private rowsOf(
    layer: number,
    tokens: readonly Token[],
    part: 'k' | 'v',
    shape: [number, number, number],
  ): Tensor<FloatDType> {
    const { given } = this.rules;
    const tensor = Tensor.zeros(shape, given);
    const width = shape[1] * shape[2];
    tokens.forEach(({ history }, t) => {
      tensor.data.set(dataOf(seedOf(history, layer, part), width, given), t * width);
    });
    return tensor;
  }

  /** Random queries of a layer, as the mirror and as the cache take them. */
  queriesOf(layer: number, rows: number) {
    const { kvHeads, headDim } = this.rules.layers[layer];
    const { given } = this.rules;
    const heads = kvHeads * GROUP;
    const seed = mix(++this.queries, 99);
    const data = dataOf(seed, rows * heads * headDim, given) as Float32Array;
    return {
      values: numbersOf(seed, rows * heads * headDim, given),
      tensor: Tensor.view(data, [1, rows, heads, headDim], given as 'f32') as Tensor<FloatDType>,
    };
  }

  /** What was computed, from these elements on, is what was expected. */
  compare(
    what: string,
    out: ArrayLike<number>,
    outFrom: number,
    lse: ArrayLike<number>,
    lseFrom: number,
    expected: Expected,
  ): void {
    const { given, storage } = this.rules;
    let dtype: CacheName = given;
    for (const held of [storage.k, storage.v]) if (isQuantised(held)) dtype = coarser(dtype, held);
    // Rotations round queries, keys and results a few times more in f32. What 8 bits of a weight leave over q4 is random,
    // and its tolerance three times the usual: among millions of results some are further off.
    const rounded = storage.rotateKeys || storage.rotateValues || storage.turned;
    const more = rounded || dtype === 'q4' ? 2 : 1;
    const { largestScore } = expected;
    const wide = given === 'f32' ? null : given;
    const outLimit = more * attentionTolerance(dtype, largestScore);
    expectNear(what, out, outFrom, wide, expected.out, outLimit);
    const lseLimit = more * lseTolerance(dtype, largestScore);
    expectNear(`${what}, LSE`, lse, lseFrom, null, expected.lse, lseLimit);
  }

  /** Ends a sequence, which can then be used for nothing. */
  dispose(actor: Actor): void {
    const { sequence } = actor;
    sequence.dispose();
    sequence.dispose();
    this.actors.splice(this.actors.indexOf(actor), 1);
    const { k, v } = this.tensorsOf(0, []);
    for (const use of [
      () => sequence.append(0, k, v),
      () => sequence.fork(),
      () => sequence.truncate(0),
      () => sequence.layer(0),
      () => sequence.share([]),
      () => this.cache.step([{ sequence, tokens: 1 }]),
    ]) {
      this.expecting('DISPOSED', use);
    }
  }

  /** Every sequence is as long as its mirror, and every block has the holders that it should have. */
  checkState(): void {
    for (const { sequence, mirror } of this.actors) {
      const { length, start } = mirror;
      if (sequence.length === length && sequence.start === start) continue;
      const [has, from] = [sequence.length, sequence.start];
      throw new Error(`length ${has} and start ${from}, not ${length} and ${start}`);
    }
    recount(this.cache);
  }
}

/** Holders of every block, counted anew, are what the pools say, and nothing that is held counts as free. */
export function recount(cache: KvCache): void {
  cache.groups.forEach(({ pool, tailPool }, group) => {
    const main = new Uint16Array(pool.blocks);
    const tail = new Uint16Array(tailPool?.blocks ?? 0);
    for (const { rings } of cache.liveSequences) {
      for (const id of rings[group].main.table.ids) if (id >= 0) main[id]++;
      for (const id of rings[group].tail?.table.ids ?? []) if (id >= 0) tail[id]++;
    }
    cache.prefixes.forEachBlock((of, id) => {
      if (of === group) main[id]++;
    });
    expectHolders(`group ${group}`, main, pool);
    if (tailPool !== null) expectHolders(`tails of group ${group}`, tail, tailPool);
  });
}

function expectHolders(
  what: string,
  counted: Uint16Array,
  pool: { holdersOf(id: number): number; used: number; highWater: number },
): void {
  let used = 0;
  counted.forEach((holders, id) => {
    if (holders > 0) used++;
    if (pool.holdersOf(id) !== holders) {
      throw new Error(`${what}: block ${id} has ${holders} holders, not ${pool.holdersOf(id)}`);
    }
  });
  if (pool.used !== used) throw new Error(`${what}: ${used} blocks are held, not ${pool.used}`);
  if (pool.highWater < used) throw new Error(`${what}: more in use than ever before`);
}

/** |actual - expected| / max(1, largest |expected|) is within the limit; actual are f32 or the bits of `dtype`. */
function expectNear(
  what: string,
  actual: ArrayLike<number>,
  from: number,
  dtype: 'f16' | 'bf16' | null,
  expected: Float64Array,
  limit: number,
): void {
  let largest = 1;
  for (const x of expected) if (x !== -Infinity) largest = max(largest, abs(x));
  for (let i = 0; i < expected.length; i++) {
    const x = dtype === null ? actual[from + i] : decodeSmall(actual[from + i], dtype);
    if (x === expected[i] || abs(x - expected[i]) <= limit * largest) continue;
    const error = abs(x - expected[i]) / largest;
    throw new Error(
      `${what}: error ${error.toExponential(2)} above ${limit.toExponential(2)} at element ${i}: ${x}, not ${expected[i]}`,
    );
  }
}
