/**
 * The ring against a cache that never forgets: random appends, truncations and attention over several sequences and
 * layers. Every result is the oracle's over all tokens, and every error comes exactly when the rules say so.
 */
import fc from 'fast-check';
import { GqaError, KvCache } from '../../lib';
import { Random } from '../support/random';
import { samples } from '../support/samples';
import { UnboundedSequence, type CacheShape, type RowOptions } from '../support/unbounded-cache';

interface Plan extends CacheShape {
  capacity: number;
  slack?: number;
  sequences: number;
}

type Step =
  | { kind: 'append'; tokens: number }
  | { kind: 'append to some layers'; tokens: number; layers: number }
  | { kind: 'truncate'; back: number }
  | { kind: 'attend'; layer: number; queries: number; options: RowOptions }
  | { kind: 'start over' };

/** The rules, from the documents: what is held, and which error comes when it is not enough. */
class Rules {
  /** The largest length a layer has reached. */
  private peak = 0;

  constructor(private readonly plan: Plan) {}

  get windowed(): boolean {
    return this.plan.window !== undefined;
  }

  /** Oldest position that is still held and no sink. */
  startAt(length: number): number {
    const { capacity, sinkTokens = 0 } = this.plan;
    const peak = Math.max(this.peak, length);
    return this.windowed && peak > capacity ? peak - (capacity - sinkTokens) : 0;
  }

  reached(length: number): void {
    this.peak = Math.max(this.peak, length);
  }

  append(length: number, tokens: number): string | undefined {
    return !this.windowed && length + tokens > this.plan.capacity ? 'CAPACITY_EXCEEDED' : undefined;
  }

  truncate(length: number): string | undefined {
    const { capacity, window = 0, sinkTokens = 0 } = this.plan;
    const slack = this.plan.slack ?? capacity - sinkTokens - window;
    const evicted = this.startAt(0) > 0;
    return evicted && length < this.peak - slack ? 'SLACK_EXCEEDED' : undefined;
  }

  attend(length: number, queries: number, options: RowOptions): string | undefined {
    const { sinkTokens = 0 } = this.plan;
    const most = this.plan.window ?? Infinity;
    const window = options.window ?? most;
    // An option may only narrow what the cache holds.
    if (window > most) return 'INVALID_ARGUMENT';
    if (this.windowed && (options.sinkTokens ?? 0) > sinkTokens) return 'INVALID_ARGUMENT';
    const start = this.startAt(length);
    for (let i = 0; i < queries; i++) {
      const p = length - queries + i;
      const newest = options.causal === false ? length - 1 : p;
      for (let j = Math.max(0, p - window + 1); j <= newest; j++) {
        if (j >= sinkTokens && j < start) return 'POSITION_EVICTED';
      }
    }
    return undefined;
  }
}

const GROUP = 2;

const plans: fc.Arbitrary<Plan> = fc
  .record({
    layers: fc.integer({ min: 1, max: 3 }),
    kvHeads: fc.integer({ min: 1, max: 2 }),
    headDim: fc.constantFrom(1, 4, 8),
    valueDim: fc.constantFrom(undefined, 4, 17),
    dtype: fc.constantFrom('f32' as const, 'f16' as const, 'bf16' as const),
    window: fc.option(fc.constantFrom(1, 2, 5, 15, 16, 17, 40, 64, 70), { nil: undefined }),
    sinkTokens: fc.constantFrom(0, 0, 1, 3, 16, 20, 65),
    slack: fc.option(fc.constantFrom(0, 1, 7, 33), { nil: undefined }),
    room: fc.constantFrom(0, 1, 5, 16, 50, 130),
    sequences: fc.integer({ min: 1, max: 3 }),
  })
  .map(({ room, ...plan }) => ({
    ...plan,
    capacity: Math.max(1, plan.sinkTokens + (plan.window ?? 0) + (plan.slack ?? 0) + room),
  }));

const steps: fc.Arbitrary<{ sequence: number; step: Step }[]> = fc.array(
  fc.record({
    sequence: fc.nat({ max: 2 }),
    step: fc.oneof(
      {
        weight: 6,
        arbitrary: fc.record({
          kind: fc.constant('append' as const),
          tokens: fc.oneof(
            fc.constantFrom(0, 1, 1, 2, 63, 64, 65),
            fc.nat({ max: 40 }),
            fc.nat({ max: 400 }),
          ),
        }),
      },
      {
        weight: 1,
        arbitrary: fc.record({
          kind: fc.constant('append to some layers' as const),
          tokens: fc.nat({ max: 150 }),
          layers: fc.integer({ min: 1, max: 2 }),
        }),
      },
      {
        weight: 2,
        arbitrary: fc.record({ kind: fc.constant('truncate' as const), back: fc.nat({ max: 60 }) }),
      },
      {
        weight: 6,
        arbitrary: fc.record({
          kind: fc.constant('attend' as const),
          layer: fc.nat({ max: 2 }),
          queries: fc.oneof(fc.constantFrom(1, 1, 2, 5), fc.nat({ max: 70 })),
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
      { weight: 1, arbitrary: fc.record({ kind: fc.constant('start over' as const) }) },
    ),
  }),
  { minLength: 5, maxLength: 30, size: 'max' },
);

class Actor {
  rules: Rules;
  tokens: UnboundedSequence;

  constructor(
    private readonly plan: Plan,
    private readonly cache: KvCache,
    private readonly random: Random,
  ) {
    this.rules = new Rules(plan);
    this.tokens = new UnboundedSequence(plan, cache.sequence(), random);
  }

  run(step: Step): void {
    const { tokens, rules, plan } = this;
    const length = tokens.length;
    switch (step.kind) {
      case 'append':
        this.expecting(rules.append(length, step.tokens), () => tokens.append(step.tokens), step);
        rules.reached(tokens.length);
        break;
      case 'append to some layers':
        this.unfinishedStep(Math.min(step.layers, plan.layers - 1), step.tokens);
        break;
      case 'truncate': {
        const to = Math.max(0, length - step.back);
        this.expecting(rules.truncate(to), () => tokens.truncate(to), step);
        break;
      }
      case 'attend': {
        const layer = step.layer % plan.layers;
        const code = rules.attend(length, step.queries, step.options);
        this.expecting(code, () => tokens.check(layer, step.queries, GROUP, step.options), step);
        break;
      }
      case 'start over':
        tokens.sequence.dispose();
        this.rules = new Rules(plan);
        this.tokens = new UnboundedSequence(plan, this.cache.sequence(), this.random);
        break;
    }
    expect(this.tokens.sequence.length).toBe(this.tokens.length);
    expect(this.tokens.sequence.start).toBe(this.rules.startAt(0));
  }

  /** Some layers append, see their own tokens, refuse another number; then the step is dropped. */
  private unfinishedStep(layers: number, count: number): void {
    const { tokens, rules, plan } = this;
    const length = tokens.length;
    if (layers === 0 || rules.append(length, count) !== undefined) return;
    for (let layer = 0; layer < layers; layer++) {
      tokens.appendLayer(layer, count);
      const code = rules.attend(length + count, 1, {});
      this.expecting(code, () => tokens.check(layer, 1, GROUP), { kind: 'append to some layers' });
      expect(() => tokens.appendRefused(layer, count)).toThrow(GqaError);
    }
    this.expecting('LAYERS_UNEVEN', () => tokens.appendRefused(0, count), 'the same layer again');
    this.expecting(
      'LAYERS_UNEVEN',
      () => tokens.appendRefused(plan.layers - 1, count + 1),
      'another number of tokens',
    );
    expect(tokens.sequence.length).toBe(length);
    const code = rules.attend(length, 1, {});
    this.expecting(
      code,
      () => tokens.check(plan.layers - 1, 1, GROUP),
      'a layer that has not appended',
    );
    rules.reached(length + count);
    // Dropping the step is a truncation, and may be refused; then the other layers finish it.
    const refused = rules.truncate(length);
    this.expecting(refused, () => tokens.truncate(length), 'dropping the step');
    if (refused !== undefined)
      for (let layer = layers; layer < plan.layers; layer++) tokens.appendLayer(layer, count);
  }

  private expecting(code: string | undefined, action: () => void, what: unknown): void {
    if (code === undefined) return action();
    const { length, start } = this.tokens.sequence;
    let thrown: unknown;
    try {
      action();
    } catch (error) {
      thrown = error;
    }
    expect([what, (thrown as GqaError | undefined)?.code]).toEqual([what, code]);
    expect([this.tokens.sequence.length, this.tokens.sequence.start]).toEqual([length, start]);
  }
}

test('random histories', () => {
  const property = fc.property(plans, steps, fc.integer(), (plan, history, seed) => {
    const cache = new KvCache(plan);
    const random = new Random(seed);
    const actors = Array.from({ length: plan.sequences }, () => new Actor(plan, cache, random));
    for (const { sequence, step } of history) actors[sequence % plan.sequences].run(step);
    // At the end every sequence still holds what it should, whatever the others did.
    for (const { rules, tokens } of actors) {
      if (tokens.length === 0 || rules.attend(tokens.length, 1, {}) !== undefined) continue;
      for (let layer = 0; layer < plan.layers; layer++) tokens.check(layer, 1, GROUP);
    }
    cache.dispose();
  });
  fc.assert(property, { numRuns: samples(250), seed: 20260, endOnFailure: false });
});

test('every length, step by step, around block and ring edges', () => {
  for (const [window, sinkTokens, room] of [
    [3, 0, 0],
    [3, 2, 1],
    [16, 1, 0],
    [40, 30, 10],
  ]) {
    const plan: Plan = {
      layers: 1,
      kvHeads: 1,
      headDim: 4,
      dtype: 'f32',
      window,
      sinkTokens,
      capacity: window + sinkTokens + room,
      sequences: 1,
    };
    const actor = new Actor(plan, new KvCache(plan), new Random(window));
    for (let length = 1; length <= samples(230); length++) {
      actor.run({ kind: 'append', tokens: 1 });
      actor.run({ kind: 'attend', layer: 0, queries: 1, options: {} });
      actor.run({ kind: 'attend', layer: 0, queries: room + 1, options: {} });
      actor.run({ kind: 'attend', layer: 0, queries: room + 2, options: {} });
      if (length % 10 === 0) {
        actor.run({ kind: 'truncate', back: room + 1 });
        actor.run({ kind: 'truncate', back: room });
        actor.run({ kind: 'append', tokens: room });
      }
    }
  }
});
