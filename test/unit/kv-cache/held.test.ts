/**
 * Random lives of a cache against a simple model. The storage is replaced by a record of which token lies where, found by
 * the contract's formula: after every operation each position that should be held must be read back from its place.
 */
import fc from 'fast-check';
import { KvCache, Tensor } from '../../../lib';
import type { KvSequence } from '../../../lib';
import type { Arena, Backend, BlockTable, StoreArgs } from '../../../lib/backend/contract';
import { errorOf } from '../refusals';

/** Remembers for every slot of every arena the token written last. */
class RecordingBackend {
  private readonly slots = new Map<Arena, Map<number, number>>();

  store = ({ arena, table, k, v, from, count, position }: StoreArgs): void => {
    const { blockTokens, kvHeads, headDim } = arena.layout;
    const slots = this.slots.get(arena) ?? new Map<number, number>();
    this.slots.set(arena, slots);
    for (let i = 0; i < count; i++) {
      const token = k[(from + i) * kvHeads * headDim];
      if (v[(from + i) * kvHeads * headDim] !== token) throw new Error('k and v differ');
      slots.set(slotOf(table, blockTokens, position + i), token);
    }
  };

  read(arena: Arena, table: BlockTable, position: number): number | undefined {
    return this.slots.get(arena)?.get(slotOf(table, arena.layout.blockTokens, position));
  }
}

function slotOf(
  { ids, sinkBlocks, ringBlocks }: BlockTable,
  blockTokens: number,
  position: number,
) {
  const ordinal = Math.floor(position / blockTokens);
  const id =
    ids[ordinal < sinkBlocks ? ordinal : sinkBlocks + ((ordinal - sinkBlocks) % ringBlocks)];
  if (id < 0) throw new Error(`position ${position} has no block`);
  return id * blockTokens + (position % blockTokens);
}

interface Shape {
  layers: number;
  window: number | undefined;
  sinkTokens: number;
  slack: number;
  spare: number;
}

/** What a sequence should be: all tokens of each layer, the step under way, and the largest length reached. */
class Model {
  readonly tokens: number[][];
  readonly appended: boolean[];
  step: number | null = null;
  length = 0;
  peak = 0;

  constructor(
    readonly shape: Shape,
    readonly capacity: number,
  ) {
    this.tokens = Array.from({ length: shape.layers }, () => []);
    this.appended = this.tokens.map(() => false);
  }

  startOf(peak: number): number {
    const outgrown = this.shape.window !== undefined && peak > this.capacity;
    return outgrown ? peak - (this.capacity - this.shape.sinkTokens) : 0;
  }

  refusal(layer: number, tokens: number): string | null {
    if (this.appended[layer]) return 'LAYERS_UNEVEN layer';
    if (this.step !== null && this.step !== tokens) return 'LAYERS_UNEVEN k';
    const full = this.shape.window === undefined && this.length + tokens > this.capacity;
    return full ? 'CAPACITY_EXCEEDED k' : null;
  }

  append(layer: number, values: number[]): void {
    this.tokens[layer].push(...values);
    this.appended[layer] = true;
    this.step = values.length;
    if (!this.appended.every(Boolean)) return;
    this.length += values.length;
    this.peak = Math.max(this.peak, this.length);
    this.endStep();
  }

  private endStep(): void {
    this.step = null;
    this.appended.fill(false);
  }

  smallestLength(): number {
    const peak = Math.max(this.peak, this.length + (this.step ?? 0));
    return this.startOf(peak) === 0 ? 0 : peak - this.shape.slack;
  }

  truncate(length: number): void {
    this.peak = Math.max(this.peak, this.length + (this.step ?? 0));
    this.length = length;
    for (const tokens of this.tokens) tokens.length = length;
    this.endStep();
  }
}

function check(sequence: KvSequence, model: Model, record: RecordingBackend): void {
  expect(sequence.length).toBe(model.length);
  expect(sequence.start).toBe(model.startOf(model.peak));
  model.tokens.forEach((tokens, i) => {
    const layer = sequence.layer(i);
    const start = model.startOf(Math.max(model.peak, tokens.length));
    expect([layer.length, layer.start]).toEqual([tokens.length, start]);
    for (let p = 0; p < tokens.length; p++) {
      if (p >= model.shape.sinkTokens && p < start) continue;
      const found = record.read(layer.source.arena, layer.source.table, p);
      // Not expect(), which is slow for each of a million positions.
      if (found !== tokens[p]) throw new Error(`position ${p} has ${found}, not ${tokens[p]}`);
    }
  });
}

const shapes = fc.record({
  layers: fc.integer({ min: 1, max: 3 }),
  window: fc.option(fc.integer({ min: 1, max: 90 }), { nil: undefined }),
  sinkTokens: fc.oneof(fc.constant(0), fc.integer({ min: 0, max: 80 })),
  slack: fc.integer({ min: 0, max: 20 }),
  spare: fc.oneof(fc.constant(0), fc.integer({ min: 0, max: 60 })),
});
const chunk = fc.oneof(
  fc.constant(1),
  fc.integer({ min: 0, max: 9 }),
  fc.integer({ min: 0, max: 300 }),
);
const operation = fc.oneof(
  { weight: 6, arbitrary: fc.record({ kind: fc.constant('step' as const), tokens: chunk }) },
  { weight: 1, arbitrary: fc.record({ kind: fc.constant('half' as const), tokens: chunk }) },
  { weight: 2, arbitrary: fc.record({ kind: fc.constant('finish' as const), tokens: chunk }) },
  { weight: 3, arbitrary: fc.record({ kind: fc.constant('back' as const), tokens: chunk }) },
);

/** One layer's part of a step: done, or refused for the reason that the model gives. */
function appendLayer(sequence: KvSequence, model: Model, layer: number, values: number[]): void {
  const tensor = Tensor.from(values, [values.length, 1, 1]);
  const refusal = model.refusal(layer, values.length);
  if (refusal === null) {
    sequence.append(layer, tensor, tensor);
    model.append(layer, values);
  } else {
    expect(errorOf(() => sequence.append(layer, tensor, tensor))).toBe(refusal);
  }
}

function truncate(sequence: KvSequence, model: Model, length: number): void {
  if (length >= model.smallestLength()) {
    sequence.truncate(length);
    model.truncate(length);
  } else {
    expect(errorOf(() => sequence.truncate(length))).toBe('SLACK_EXCEEDED length');
  }
}

test('what should be held is held, in its place', () => {
  fc.assert(
    fc.property(shapes, fc.array(operation, { maxLength: 25 }), (shape, operations) => {
      const { layers, window, sinkTokens, slack, spare } = shape;
      const capacity = sinkTokens + (window ?? 40) + slack + spare;
      const geometry = { layers, kvHeads: 1, headDim: 1, capacity, window, sinkTokens, slack };
      const cache = new KvCache(geometry);
      const record = new RecordingBackend();
      Object.assign(cache, { backend: record as unknown as Backend });
      const sequence = cache.sequence();
      const model = new Model(shape, capacity);
      let next = 1;
      for (const { kind, tokens } of operations) {
        if (kind === 'back') {
          truncate(sequence, model, Math.max(0, model.length - tokens));
        } else {
          const count = kind === 'finish' ? (model.step ?? tokens) : tokens;
          const last = kind === 'half' ? layers - 1 : layers;
          for (let layer = 0; layer < last; layer++) {
            const values = Array.from({ length: count }, () => next++ % 1e6);
            appendLayer(sequence, model, layer, values);
          }
        }
        check(sequence, model, record);
      }
      cache.dispose();
    }),
    { numRuns: 300 },
  );
});
