/**
 * Random programs over a KvCache, and the judge that runs them beside a mirror: every result is that of naive attention
 * in float64 over all tokens ever appended, as they are stored; every error comes exactly when the rules say so and
 * changes nothing; and after every command each block has as many holders as sequences and prefixes that hold it.
 */
import fc from 'fast-check';
import type { LayerShape } from '../../lib';
import type { SeenOptions } from '../support/mirror-sequence';
import type { FloatName } from '../support/numbers';
import type { CacheName } from '../support/quantise';
import { Machine } from './machine';

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

export interface StepPart {
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
const prefix = fc.oneof(fc.constantFrom(16, 64, 128, 200), fc.nat({ max: 300 }));
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
    { weight: 2, arbitrary: fc.record({ kind: kind('share'), who, tokens: prefix }) },
    {
      weight: 2,
      arbitrary: fc.record({
        kind: kind('lookup'),
        who,
        tokens: prefix,
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
