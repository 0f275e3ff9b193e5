/**
 * Random programs over a KvCache, and the judge that runs them beside a mirror: every result is that of naive attention
 * in float64 over all tokens ever appended, as they are stored; every error comes exactly when the rules say so and
 * changes nothing; and after every command each block has as many holders as sequences and prefixes that hold it.
 */
import fc from 'fast-check';
import { attention, GqaError, KvCache, Tensor } from '../../lib';
import type { FloatDType, GqaErrorCode, KvCacheOptions, KvSequence, LayerShape } from '../../lib';
import { dataOf, historyOf, mix, numbersOf, ropeOf, seedOf } from '../support/cache-contents';
import type { Row } from '../support/cache-contents';
import { MirrorSequence } from '../support/cache-mirror';
import type { CacheRules, Expected, LayerRules, SeenOptions, Token } from '../support/cache-mirror';
import { decodeSmall, encodeSmall, type FloatName } from '../support/numbers';
import { isQuantised, type CacheName } from '../support/quantise';
import { attentionTolerance, coarser, lseTolerance } from '../tolerances';

const { abs, ceil, floor, max, min } = Math;

/** Query heads of a KV head. */
const GROUP = 2;
const MOST_SNAPSHOTS = 2;
/** What a layer with a window of its own gets where no slack is given. */
const LOCAL_SLACK = 256;

export interface Plan {
  layers: LayerShape[];
  kvHeads: number;
  headDim: number;
  valueDim: number | undefined;
  dtype: { k: CacheName; v: CacheName };
  rotate: boolean | { k: boolean; v: boolean } | undefined;
  recent: number;
  window: number | undefined;
  sinkTokens: number;
  slack: number | undefined;
  /** Capacity beyond what sinks, window and slack need. */
  room: number;
  sequences: number;
  prefixTokens: number;
  positions: 'absolute' | 'cache';
  /** What keys, values and queries come in. */
  given: FloatName;
}

interface StepPart {
  who: number;
  tokens: number;
  text: number;
  /** Numbers that the parents of a tree of drafts follow from; without them the tokens are a chain. */
  tree: number[] | null;
}

export type Command =
  | { kind: 'append'; who: number; tokens: number; text: number }
  | { kind: 'append to some layers'; who: number; tokens: number; layers: number; finish: boolean }
  | { kind: 'attend'; who: number; layer: number; queries: number; options: SeenOptions }
  | { kind: 'truncate'; who: number; back: number }
  | { kind: 'new' }
  | { kind: 'fork'; who: number }
  | { kind: 'dispose'; who: number }
  | { kind: 'share'; who: number; tokens: number }
  | { kind: 'lookup'; who: number; tokens: number; more: number; text: number }
  | { kind: 'snapshot'; who: number }
  | { kind: 'restore'; which: number }
  | { kind: 'step'; parts: StepPart[]; cascade: boolean; kept: number; fork: boolean }
  | { kind: 'append what is no number'; who: number; tokens: number; values: boolean };

const FLOATS: FloatName[] = ['f32', 'f16', 'bf16'];
const NAMES: CacheName[] = [...FLOATS, 'q8', 'q4'];

const dtypes = fc.oneof(
  { weight: 3, arbitrary: fc.constantFrom(...NAMES).map((name) => ({ k: name, v: name })) },
  {
    weight: 1,
    arbitrary: fc.record({ k: fc.constantFrom(...NAMES), v: fc.constantFrom(...NAMES) }),
  },
);

const layerShape: fc.Arbitrary<LayerShape> = fc.record(
  {
    kvHeads: fc.integer({ min: 1, max: 2 }),
    headDim: fc.constantFrom(1, 4, 5),
    window: fc.constantFrom(3, 20, 70, Infinity),
  },
  { requiredKeys: [] },
);

export const plans: fc.Arbitrary<Plan> = fc.record({
  layers: fc.oneof(
    {
      weight: 3,
      arbitrary: fc.integer({ min: 1, max: 2 }).map((n) => new Array<LayerShape>(n).fill({})),
    },
    { weight: 1, arbitrary: fc.array(layerShape, { minLength: 1, maxLength: 3 }) },
  ),
  kvHeads: fc.integer({ min: 1, max: 2 }),
  headDim: fc.constantFrom(1, 3, 4, 8),
  valueDim: fc.constantFrom(undefined, undefined, 4, 7, 33),
  dtype: dtypes,
  rotate: fc.constantFrom(
    undefined,
    undefined,
    true,
    false,
    { k: true, v: false },
    { k: false, v: true },
  ),
  recent: fc.constantFrom(0, 0, 0, 1, 64, 100),
  window: fc.constantFrom(undefined, 1, 2, 5, 15, 16, 17, 40, 64, 70),
  sinkTokens: fc.constantFrom(0, 0, 1, 3, 16, 20, 65),
  slack: fc.constantFrom(undefined, undefined, 0, 1, 7, 33),
  room: fc.constantFrom(0, 1, 5, 16, 50, 130, 200),
  sequences: fc.integer({ min: 1, max: 4 }),
  prefixTokens: fc.constantFrom(0, 64, 64, 130, 1000),
  positions: fc.constantFrom('absolute' as const, 'absolute' as const, 'cache' as const),
  given: fc.constantFrom('f32' as const, 'f32' as const, 'f16' as const, 'bf16' as const),
});

const who = fc.nat({ max: 3 });
const text = fc.nat({ max: 1 });
const chunk = fc.oneof(
  fc.constantFrom(0, 1, 1, 2, 15, 16, 17, 63, 64, 65),
  fc.nat({ max: 40 }),
  fc.nat({ max: 300 }),
);
const kind = <K extends string>(name: K): fc.Arbitrary<K> => fc.constant(name);

export const commands: fc.Arbitrary<Command[]> = fc.array(
  fc.oneof(
    { weight: 8, arbitrary: fc.record({ kind: kind('append'), who, tokens: chunk, text }) },
    {
      weight: 1,
      arbitrary: fc.record({
        kind: kind('append to some layers'),
        who,
        tokens: fc.nat({ max: 150 }),
        layers: fc.integer({ min: 1, max: 2 }),
        finish: fc.boolean(),
      }),
    },
    {
      weight: 8,
      arbitrary: fc.record({
        kind: kind('attend'),
        who,
        layer: fc.nat({ max: 2 }),
        queries: fc.oneof(fc.constantFrom(1, 1, 2, 5), fc.nat({ max: 30 })),
        options: fc.record(
          {
            causal: fc.boolean(),
            window: fc.constantFrom(1, 3, 16, 100),
            sinkTokens: fc.constantFrom(0, 2, 70),
          },
          { requiredKeys: [] },
        ),
      }),
    },
    {
      weight: 3,
      arbitrary: fc.record({ kind: kind('truncate'), who, back: fc.integer({ min: -2, max: 90 }) }),
    },
    { weight: 1, arbitrary: fc.record({ kind: kind('new') }) },
    { weight: 2, arbitrary: fc.record({ kind: kind('fork'), who }) },
    { weight: 1, arbitrary: fc.record({ kind: kind('dispose'), who }) },
    { weight: 1, arbitrary: fc.record({ kind: kind('share'), who, tokens: fc.nat({ max: 200 }) }) },
    {
      weight: 1,
      arbitrary: fc.record({
        kind: kind('lookup'),
        who,
        tokens: fc.nat({ max: 200 }),
        more: fc.nat({ max: 150 }),
        text,
      }),
    },
    { weight: 1, arbitrary: fc.record({ kind: kind('snapshot'), who }) },
    { weight: 1, arbitrary: fc.record({ kind: kind('restore'), which: fc.nat({ max: 1 }) }) },
    {
      weight: 3,
      arbitrary: fc.record({
        kind: kind('step'),
        parts: fc.array(
          fc.record({
            who,
            tokens: fc.oneof(fc.constantFrom(1, 1, 2, 3), fc.nat({ max: 70 })),
            text,
            tree: fc.option(fc.array(fc.nat({ max: 20 }), { minLength: 1, maxLength: 12 })),
          }),
          { minLength: 1, maxLength: 3 },
        ),
        cascade: fc.boolean(),
        kept: fc.nat({ max: 70 }),
        fork: fc.boolean(),
      }),
    },
    {
      weight: 1,
      arbitrary: fc.record({
        kind: kind('append what is no number'),
        who,
        tokens: fc.integer({ min: 1, max: 5 }),
        values: fc.boolean(),
      }),
    },
  ),
  { minLength: 4, maxLength: 24, size: 'max' },
);

/** What the options come to, by the documents. */
function rulesOf(plan: Plan): CacheRules {
  const { recent, given, rotate, sinkTokens } = plan;
  const { k, v } = plan.dtype;
  const capacity = capacityOf(plan);
  const own = typeof rotate === 'object' ? rotate : { k: rotate, v: rotate };
  const windows = plan.layers.map((shape) => shape.window ?? plan.window ?? Infinity);
  // Layers without a window end every sequence at the cache's capacity.
  const longest = windows.includes(Infinity) ? capacity : Infinity;
  const layers = plan.layers.map((shape, i): LayerRules => {
    const headDim = shape.headDim ?? plan.headDim;
    const kvHeads = shape.kvHeads ?? plan.kvHeads;
    const sizes = { kvHeads, headDim, valueDim: shape.valueDim ?? plan.valueDim ?? headDim };
    const window = windows[i];
    if (window === Infinity) return { ...sizes, sinkTokens, window, capacity, slack: capacity };
    if (shape.window === undefined) {
      const slack = plan.slack ?? capacity - sinkTokens - window;
      return { ...sizes, sinkTokens, window, capacity, slack };
    }
    const slack = plan.slack ?? LOCAL_SLACK;
    const needed = sinkTokens + window + slack;
    if (longest > needed) return { ...sizes, sinkTokens, window, capacity: needed, slack };
    // No sequence outgrows it, nor, perhaps, the window.
    const seen = longest > sinkTokens + window ? window : Infinity;
    return { ...sizes, sinkTokens, window: seen, capacity: longest, slack: longest };
  });
  const quantised = isQuantised(k) || isQuantised(v);
  const largest = max(...layers.map((layer) => layer.capacity));
  return {
    layers,
    storage: {
      k,
      v,
      rotateKeys: own.k ?? k === 'q4',
      rotateValues: own.v ?? v === 'q4',
      turned: plan.positions === 'cache',
    },
    given,
    recent: quantised ? recent : 0,
    blockTokens: quantised ? 64 : min(64, ceil(largest / 16) * 16),
  };
}

function capacityOf({ window = 0, sinkTokens, slack = 0, room }: Plan): number {
  return max(1, sinkTokens + window + slack + room);
}

function optionsOf(plan: Plan, rules: CacheRules): KvCacheOptions {
  const { kvHeads, headDim, valueDim, dtype, rotate, window, sinkTokens, slack } = plan;
  const { sequences, prefixTokens, positions } = plan;
  const layers = plan.layers.map((shape, i): LayerShape => {
    return positions === 'cache' ? { ...shape, rope: ropeOf(rules.layers[i].headDim) } : shape;
  });
  return {
    ...{ layers, kvHeads, headDim, valueDim, dtype, rotate, window, sinkTokens, slack },
    ...{ sequences, prefixTokens, positions, recent: rules.recent, capacity: capacityOf(plan) },
  };
}

/** A live sequence and its mirror. */
interface Actor {
  sequence: KvSequence;
  mirror: MirrorSequence;
  /** It holds tokens of a tree as if they were a chain: no text says what they are. */
  jumbled: boolean;
}

const FIRST_HISTORY = 17;

class Machine {
  private readonly rules: CacheRules;
  private readonly cache: KvCache;
  private readonly memos: Map<number, Row>[];
  private readonly actors: Actor[] = [];
  private readonly gone: KvSequence[] = [];
  private readonly saved: { bytes: Uint8Array; mirror: MirrorSequence; jumbled: boolean }[] = [];
  /** Histories at the ends of all blocks that were ever shared. */
  private readonly shared = new Set<number>();
  private queries = 0;

  constructor(private readonly plan: Plan) {
    this.rules = rulesOf(plan);
    this.cache = new KvCache(optionsOf(plan, this.rules));
    this.memos = this.rules.layers.map(() => new Map<number, Row>());
    this.add(this.cache.sequence(), this.emptyMirror());
  }

  private emptyMirror(): MirrorSequence {
    return new MirrorSequence(this.rules, this.memos);
  }

  private add(sequence: KvSequence, mirror: MirrorSequence, jumbled = false): void {
    this.actors.push({ sequence, mirror, jumbled });
  }

  /** Blocks of shared prefixes that the cache may hold. */
  private get budget(): number {
    return ceil(this.plan.prefixTokens / this.rules.blockTokens);
  }

  run(command: Command): void {
    this.execute(command);
    for (const { sequence, mirror } of this.actors) {
      if (sequence.length !== mirror.length || sequence.start !== mirror.start) {
        const [length, start] = [mirror.length, mirror.start];
        throw new Error(
          `length ${sequence.length} and start ${sequence.start}, not ${length} and ${start}`,
        );
      }
    }
    this.recount();
  }

  private execute(command: Command): void {
    if (command.kind === 'new') return this.makeNew();
    if (command.kind === 'restore') return this.restore(command.which);
    if (this.actors.length === 0) return;
    if (command.kind === 'step') return this.step(command);
    const actor = this.actors[command.who % this.actors.length];
    switch (command.kind) {
      case 'append':
        return this.append(actor, command.tokens, command.text);
      case 'append to some layers':
        return this.appendPart(actor, command);
      case 'attend':
        return this.attend(actor, command.layer, command.queries, command.options);
      case 'truncate': {
        const length = max(0, actor.mirror.length - command.back);
        return this.truncate(actor, length);
      }
      case 'fork':
        return this.fork(actor);
      case 'dispose':
        return this.dispose(actor);
      case 'share':
        return this.share(actor, command.tokens);
      case 'lookup':
        return this.lookup(actor, command);
      case 'snapshot':
        return this.snapshot(actor);
      case 'append what is no number':
        return this.appendNonsense(actor, command.tokens, command.values);
    }
  }

  /** At the end every sequence holds what it should, whatever the others did. */
  finish(): void {
    for (const actor of this.actors) {
      this.rules.layers.forEach((_, layer) => this.attend(actor, layer, 1, {}));
    }
    this.cache.dispose();
    if (this.cache.bytes !== 0) throw new Error('a disposed cache holds memory');
    for (const { sequence } of this.actors) {
      this.expecting('DISPOSED', () => sequence.truncate(0));
    }
  }

  /** Runs the action, which must throw an error of this code, or none. */
  private expecting(code: GqaErrorCode | undefined, action: () => void): void {
    if (code === undefined) return action();
    try {
      action();
    } catch (error) {
      if (error instanceof GqaError && error.code === code) return;
      throw error;
    }
    throw new Error(`nothing was thrown, not ${code}`);
  }

  // ---- tokens and tensors

  /** The next tokens of a text after those of a sequence. */
  private nextTokens(mirror: MirrorSequence, count: number, id: number): Token[] {
    const tokens: Token[] = [];
    let history = mirror.tokens.at(-1)?.history ?? FIRST_HISTORY;
    for (let i = 0; i < count; i++) {
      history = historyOf(history, id);
      tokens.push({ id, history, position: mirror.tokens.length + i });
    }
    return tokens;
  }

  private tensorsOf(layer: number, tokens: readonly Token[]) {
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
  private queriesOf(layer: number, rows: number) {
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

  // ---- commands

  private makeNew(): void {
    this.expecting(this.fullError(), () => this.add(this.cache.sequence(), this.emptyMirror()));
  }

  private fullError(): GqaErrorCode | undefined {
    return this.actors.length === this.plan.sequences ? 'CAPACITY_EXCEEDED' : undefined;
  }

  private append({ sequence, mirror }: Actor, count: number, id: number): void {
    const tokens = this.nextTokens(mirror, count, id);
    const layers = this.rules.layers.map((_, i) =>
      id === 0 ? i : this.rules.layers.length - 1 - i,
    );
    if (count > mirror.room) {
      const { k, v } = this.tensorsOf(0, tokens);
      return this.expecting('CAPACITY_EXCEEDED', () => sequence.append(0, k, v));
    }
    for (const layer of layers) {
      const { k, v } = this.tensorsOf(layer, tokens);
      sequence.append(layer, k, v);
    }
    mirror.append(tokens);
  }

  /** Some layers append, see their own tokens, refuse another number; then the step is finished, or dropped. */
  private appendPart(
    actor: Actor,
    { tokens: count, layers, finish }: Command & { kind: 'append to some layers' },
  ): void {
    const { sequence, mirror } = actor;
    const all = this.rules.layers.length;
    const some = min(layers, all - 1);
    if (some === 0 || count > mirror.room) return;
    const length = mirror.length;
    const tokens = this.nextTokens(mirror, count, 2);
    mirror.begin(tokens);
    for (let layer = 0; layer < some; layer++) {
      const { k, v } = this.tensorsOf(layer, tokens);
      sequence.append(layer, k, v);
      mirror.layers[layer].append(tokens);
      this.attend(actor, layer, 1, {});
      this.expecting('LAYERS_UNEVEN', () => sequence.append(layer, k, v));
    }
    const more = this.tensorsOf(all - 1, this.nextTokens(mirror, count + 1, 2));
    this.expecting('LAYERS_UNEVEN', () => sequence.append(all - 1, more.k, more.v));
    this.expecting('LAYERS_UNEVEN', () => sequence.fork());
    this.expecting('LAYERS_UNEVEN', () => sequence.share([]));
    this.expecting('LAYERS_UNEVEN', () => this.cache.step([{ sequence, tokens: 1 }]));
    this.attend(actor, all - 1, 1, {});
    const refused = mirror.truncateError(length);
    if (!finish) this.truncate(actor, length);
    if (!finish && refused === undefined) return;
    for (let layer = some; layer < all; layer++) {
      const { k, v } = this.tensorsOf(layer, tokens);
      sequence.append(layer, k, v);
      mirror.layers[layer].append(tokens);
    }
    mirror.commit();
  }

  private appendNonsense({ sequence, mirror }: Actor, count: number, values: boolean): void {
    const { k, v } = this.tensorsOf(0, this.nextTokens(mirror, count, 0));
    const { storage } = this.rules;
    if (count > mirror.room || !isQuantised(values ? storage.v : storage.k)) return;
    const { data, dtype } = values ? v : k;
    const nonsense = [NaN, Infinity, -Infinity][this.queries % 3];
    data[data.length - 1] = dtype === 'f32' ? nonsense : encodeSmall(nonsense, dtype);
    this.expecting('NON_FINITE', () => sequence.append(0, k, v));
  }

  private truncate({ sequence, mirror }: Actor, length: number): void {
    const error = mirror.truncateError(length);
    this.expecting(error, () => sequence.truncate(length));
    if (error === undefined) mirror.truncate(length);
  }

  private attend(
    { sequence, mirror }: Actor,
    index: number,
    queries: number,
    options: SeenOptions,
  ): void {
    const layer = index % this.rules.layers.length;
    const q = this.queriesOf(layer, queries);
    const call = () => attention(q.tensor, sequence.layer(layer), { ...options, returnLse: true });
    const error = mirror.attendError(layer, queries, options);
    if (error !== undefined) return this.expecting(error, call);
    const { out, lse } = call();
    const expected = mirror.attend(layer, q.values, queries, options);
    this.compare(`layer ${layer}, ${queries} queries`, out.data, 0, lse.data, 0, expected);
  }

  /** What was computed, from these elements on, is what was expected. */
  private compare(
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
    // Rotations round queries, keys and results a few times more in f32.
    const more = storage.rotateKeys || storage.rotateValues || storage.turned ? 2 : 1;
    const { largestScore } = expected;
    const wide = given === 'f32' ? null : given;
    const outLimit = more * attentionTolerance(dtype, largestScore);
    expectNear(what, out, outFrom, wide, expected.out, outLimit);
    const lseLimit = more * lseTolerance(dtype, largestScore);
    expectNear(`${what}, LSE`, lse, lseFrom, null, expected.lse, lseLimit);
  }

  private fork({ sequence, mirror, jumbled }: Actor): void {
    this.expecting(this.fullError(), () => this.add(sequence.fork(), mirror.clone(), jumbled));
  }

  private dispose(actor: Actor): void {
    const { sequence } = actor;
    sequence.dispose();
    sequence.dispose();
    this.actors.splice(this.actors.indexOf(actor), 1);
    this.gone.push(sequence);
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

  private share({ sequence, mirror, jumbled }: Actor, count: number): void {
    const { blockTokens } = this.rules;
    const ids = mirror.tokens.slice(0, count).map(({ id }) => id);
    if (count > mirror.length + 20) {
      while (ids.length < count) ids.push(0);
      return this.expecting('OUT_OF_RANGE', () => sequence.share(ids));
    }
    const blocks = min(this.budget, floor(ids.length / blockTokens));
    if (jumbled || !mirror.layers.every((layer) => layer.isPristine(blocks * blockTokens))) return;
    const error = mirror.start > 0 ? 'POSITION_EVICTED' : undefined;
    this.expecting(error, () => {
      const found = sequence.share(ids);
      if (found !== blocks * blockTokens) {
        throw new Error(`${found} tokens shared, not ${blocks * blockTokens}`);
      }
    });
    if (error !== undefined) return;
    for (let b = 1; b <= blocks; b++) this.shared.add(mirror.tokens[b * blockTokens - 1].history);
    if (this.cache.sharedTokens > this.budget * blockTokens) throw new Error('beyond the budget');
    if (this.fullError() !== undefined) return;
    const again = this.cache.lookup(ids);
    if (again.length !== blocks * blockTokens) throw new Error('what was shared is not found');
    again.dispose();
  }

  private lookup(
    { mirror }: Actor,
    { tokens, more, text: id }: Command & { kind: 'lookup' },
  ): void {
    const { blockTokens } = this.rules;
    const copy = this.emptyMirror();
    for (const token of mirror.tokens.slice(0, tokens)) {
      copy.tokens.push(...this.nextTokens(copy, 1, token.id));
    }
    copy.tokens.push(...this.nextTokens(copy, more, id));
    const wanted = copy.tokens;
    let most = 0;
    while (most + blockTokens <= wanted.length) {
      if (!this.shared.has(wanted[most + blockTokens - 1].history)) break;
      most += blockTokens;
    }
    this.expecting(this.fullError(), () => {
      const sequence = this.cache.lookup(wanted.map((token) => token.id));
      const found = sequence.length;
      const all = this.shared.size <= this.budget;
      if (found % blockTokens !== 0 || found > most || (all && found < most)) {
        throw new Error(`a prefix of ${found} tokens found, not ${all ? '' : 'up to '}${most}`);
      }
      const begun = this.emptyMirror();
      begun.adopt(wanted.slice(0, found));
      this.add(sequence, begun);
    });
  }

  private snapshot({ sequence, mirror, jumbled }: Actor): void {
    if (!('snapshot' in sequence)) return;
    const bytes = (sequence as unknown as { snapshot(): Uint8Array }).snapshot();
    this.saved.unshift({ bytes, mirror: mirror.clone(), jumbled });
    this.saved.length = min(this.saved.length, MOST_SNAPSHOTS);
  }

  private restore(which: number): void {
    if (this.saved.length === 0) return;
    const { bytes, mirror, jumbled } = this.saved[which % this.saved.length];
    this.expecting(this.fullError(), () =>
      this.add(
        (this.cache as unknown as { restore(b: Uint8Array): KvSequence }).restore(bytes),
        mirror.clone(),
        jumbled,
      ),
    );
  }

  // ---- steps

  private step({ parts, cascade, kept, fork }: Command & { kind: 'step' }): void {
    const entries = parts.map((part) => this.entryOf(part));
    const given = entries.map(({ actor, tokens, parents }) => {
      const { sequence } = actor;
      return { sequence, tokens: tokens.length, tree: parents ?? undefined };
    });
    const error = this.stepError(entries);
    if (error !== undefined) return this.expecting(error, () => this.cache.step(given));
    const step = this.cache.step(given, { cascade });
    const positions = entries.flatMap(({ tokens }) => tokens.map(({ position }) => position));
    if (positions.some((position, row) => step.positions[row] !== position)) {
      throw new Error(`positions ${step.positions.join()}, not ${positions.join()}`);
    }
    for (const { actor, tokens } of entries) actor.mirror.begin(tokens);
    this.rules.layers.forEach((_, layer) => this.stepLayer(step, entries, layer));
    for (const { actor } of entries) actor.mirror.commit();
    entries.forEach((entry, index) => this.keep(step, entry, index, kept, fork));
  }

  private entryOf({ who: index, tokens: count, text: id, tree }: StepPart): StepEntry {
    const actor = this.actors[index % this.actors.length];
    const { mirror } = actor;
    if (tree === null) return { actor, tokens: this.nextTokens(mirror, count, id), parents: null };
    const start = mirror.tokens.length;
    const before = mirror.tokens.at(-1)?.history ?? FIRST_HISTORY;
    const tokens: Token[] = [];
    const parents = tree.map((number, row) => (number % (row + 1)) - 1);
    parents.forEach((parent, row) => {
      const from = parent < 0 ? { history: before, position: start - 1 } : tokens[parent];
      // Brothers differ by their id.
      const history = historyOf(from.history, 10 + row);
      tokens.push({ id: 10 + row, history, position: from.position + 1 });
    });
    return { actor, tokens, parents };
  }

  private stepError(entries: readonly StepEntry[]): GqaErrorCode | undefined {
    const seen = new Set<Actor>();
    for (const { actor, tokens } of entries) {
      if (tokens.length === 0) return 'OUT_OF_RANGE';
      if (tokens.length > actor.mirror.room) return 'CAPACITY_EXCEEDED';
      if (tokens.length > actor.mirror.longestChunk) return 'OUT_OF_RANGE';
      if (seen.has(actor)) return 'INVALID_ARGUMENT';
      seen.add(actor);
    }
    return undefined;
  }

  private stepLayer(
    step: ReturnType<KvCache['step']>,
    entries: readonly StepEntry[],
    layer: number,
  ): void {
    const { kvHeads, headDim, valueDim } = this.rules.layers[layer];
    const tokens = entries.flatMap((entry) => entry.tokens);
    const { k, v } = this.tensorsOf(layer, tokens);
    step.append(layer, k, v);
    for (const entry of entries) entry.actor.mirror.layers[layer].append(entry.tokens);
    const rows = tokens.length;
    const heads = kvHeads * GROUP;
    const q = this.queriesOf(layer, rows);
    const lse = Tensor.zeros([rows, heads]);
    const out = step.attend(layer, q.tensor, undefined, { lse });
    let first = 0;
    for (const { actor, tokens: own, parents } of entries) {
      const queries = q.values.slice(
        first * heads * headDim,
        (first + own.length) * heads * headDim,
      );
      const expected =
        parents === null
          ? actor.mirror.attend(layer, queries, own.length)
          : actor.mirror.attendTree(layer, queries, parents);
      const what = `layer ${layer}, row ${first} of a step and on`;
      this.compare(what, out.data, first * heads * valueDim, lse.data, first * heads, expected);
      first += own.length;
    }
  }

  /** The tokens of a tree become those from a root down to one of them, or none. */
  private keep(
    step: ReturnType<KvCache['step']>,
    { actor, tokens, parents }: StepEntry,
    index: number,
    kept: number,
    fork: boolean,
  ): void {
    if (parents === null) {
      return this.expecting('INVALID_ARGUMENT', () => step.keep(index, [0]));
    }
    const { mirror } = actor;
    if (fork && !this.rules.storage.turned && this.fullError() === undefined) {
      // The fork has all tokens of the tree, one after the other, whatever becomes of the original.
      this.add(actor.sequence.fork(), mirror.clone(), true);
    }
    const path: number[] = [];
    for (let at = (kept % (tokens.length + 1)) - 1; at >= 0; at = parents[at]) path.unshift(at);
    const start = mirror.length - tokens.length;
    this.expecting('INVALID_ARGUMENT', () => step.keep(index, [...path, tokens.length]));
    const error = mirror.truncateError(start + path.length);
    this.expecting(error, () => step.keep(index, path));
    if (error !== undefined) return this.dispose(actor);
    mirror.keep(
      start,
      path.map((row) => tokens[row]),
    );
  }

  // ---- reference counts

  /** Holders of every block, counted anew, are what the pools say, and nothing that is held counts as free. */
  private recount(): void {
    this.cache.groups.forEach(({ pool, tailPool }, group) => {
      const main = new Uint16Array(pool.blocks);
      const tail = new Uint16Array(tailPool?.blocks ?? 0);
      for (const { rings } of this.cache.liveSequences) {
        for (const id of rings[group].main.table.ids) if (id >= 0) main[id]++;
        for (const id of rings[group].tail?.table.ids ?? []) if (id >= 0) tail[id]++;
      }
      this.cache.prefixes.forEachBlock((of, id) => {
        if (of === group) main[id]++;
      });
      expectHolders(`group ${group}`, main, pool);
      if (tailPool !== null) expectHolders(`tails of group ${group}`, tail, tailPool);
    });
  }
}

interface StepEntry {
  actor: Actor;
  tokens: Token[];
  parents: number[] | null;
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

/** Runs a program; throws where anything is not as it should be. */
export function runProgram(plan: Plan, program: readonly Command[]): void {
  const machine = new Machine(plan);
  for (const command of program) machine.run(command);
  machine.finish();
}

/** Runs that many random programs; the error tells the smallest that failed, and its seed. */
export function checkPrograms(numRuns: number, seed: number): void {
  fc.assert(fc.property(plans, commands, runProgram), { numRuns, seed, endOnFailure: false });
}
