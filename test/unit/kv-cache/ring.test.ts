/** Lengths, what is held, which slot, rollback: step by step. */
import { KvCache, Tensor } from '../../../lib';
import type { KvSequence } from '../../../lib';
import { blockTokensFor, planRing, slotOf, startAfter } from '../../../lib/kv-cache/geometry';
import type { RingGeometry } from '../../../lib/kv-cache/geometry';
import { errorOf } from '../refusals';

interface Shape {
  layers?: number;
  capacity: number;
  window?: number;
  sinkTokens?: number;
  slack?: number;
}

function geometryOf(
  capacity: number,
  window = Infinity,
  sinkTokens = 0,
  quantised = false,
  recent = 0,
): RingGeometry {
  const shape = { capacity, window, sinkTokens, slack: 0, quantised, recent };
  return planRing(shape, blockTokensFor(capacity, quantised));
}

/** A sequence of small tokens. */
function sequenceOf({ layers = 1, ...shape }: Shape): KvSequence {
  return new KvCache({ layers, kvHeads: 1, headDim: 1, ...shape }).sequence();
}

function append(sequence: KvSequence, layer: number, tokens: number): void {
  const rows = Tensor.zeros([tokens, 1, 1]);
  sequence.append(layer, rows, rows);
}

function step(sequence: KvSequence, tokens: number): void {
  for (let layer = 0; layer < sequence.cache.layers; layer++) append(sequence, layer, tokens);
}

describe('geometry', () => {
  test.each([
    [1, 16, 1],
    [16, 16, 1],
    [17, 32, 1],
    [64, 64, 1],
    [65, 64, 2],
    [1000, 64, 16],
  ])('capacity %i: blocks of %i, %i of them', (capacity, blockTokens, blocks) => {
    const plan = geometryOf(capacity);
    expect([plan.blockTokens, plan.sinkBlocks, plan.ringBlocks]).toEqual([blockTokens, 0, blocks]);
  });

  test.each([
    [1, 1, 0, 16, 0, 2],
    [100, 64, 0, 64, 0, 3],
    [100, 64, 4, 64, 1, 3],
    [300, 100, 65, 64, 2, 5],
  ])(
    'capacity %i, window %i, sinks %i',
    (capacity, window, sinks, blockTokens, sinkBlocks, ring) => {
      const plan = geometryOf(capacity, window, sinks);
      expect(plan.keep).toBe(capacity - sinks);
      expect([plan.blockTokens, plan.sinkBlocks, plan.ringBlocks]).toEqual([
        blockTokens,
        sinkBlocks,
        ring,
      ]);
    },
  );
});

test('walks token by token: window 3, 2 sinks, capacity 6', () => {
  const ring = sequenceOf({ capacity: 6, window: 3, sinkTokens: 2 });
  const walk = [];
  for (let i = 0; i < 9; i++) {
    step(ring, 1);
    walk.push([ring.length, ring.start]);
  }
  // keep is 4: at length 7 the sinks 0, 1 and the run 3..6 are left.
  expect(walk).toEqual([
    [1, 0],
    [2, 0],
    [3, 0],
    [4, 0],
    [5, 0],
    [6, 0],
    [7, 3],
    [8, 4],
    [9, 5],
  ]);
});

test('a slot is taken again only after its block has left the ring', () => {
  const ring = geometryOf(130, 100, 10);
  expect([ring.sinkBlocks, ring.ringBlocks]).toEqual([1, 3]);
  expect([0, 1, 2, 3, 4, 5].map((ordinal) => slotOf(ring, ordinal))).toEqual([0, 1, 2, 3, 1, 2]);
});

test('a quantised cache has blocks of 64, and a tail of floats', () => {
  expect(geometryOf(10, Infinity, 0, true)).toMatchObject({
    blockTokens: 64,
    tail: { sinkBlocks: 0, ringBlocks: 2 },
  });
  expect(geometryOf(1000, Infinity, 70, true, 100).tail).toEqual({
    recent: 100,
    sinkBlocks: 2,
    ringBlocks: 4,
  });
});

test('no two held blocks share a slot, at any length and for any shape', () => {
  for (const capacity of [1, 2, 15, 16, 17, 63, 64, 65, 130, 200]) {
    for (const sinkTokens of [0, 1, 16, 63, 64, 65].filter((s) => s < capacity)) {
      // Plain comparisons: expect() would be called half a million times.
      const ring = geometryOf(capacity, 1, sinkTokens);
      const { blockTokens, keep } = ring;
      for (let length = 1; length < 3 * capacity + 200; length++) {
        const start = startAfter(ring, length);
        if (start !== (length > capacity ? length - keep : 0)) throw new Error('start');
        const ordinals = new Set<number>();
        for (let p = 0; p < sinkTokens; p++) ordinals.add(Math.floor(p / blockTokens));
        for (let p = start; p < length; p++) ordinals.add(Math.floor(p / blockTokens));
        const slots = new Set([...ordinals].map((o) => slotOf(ring, o)));
        if (slots.size !== ordinals.size) throw new Error(`shared slot at length ${length}`);
      }
    }
  }
});

describe('layers', () => {
  test('advance together: each once, the same number, in any order', () => {
    const ring = sequenceOf({ layers: 3, capacity: 10 });
    append(ring, 2, 4);
    expect([0, 1, 2].map((l) => ring.layer(l).length)).toEqual([0, 0, 4]);
    expect(ring.length).toBe(0);
    expect(errorOf(() => append(ring, 2, 4))).toBe('LAYERS_UNEVEN layer');
    expect(errorOf(() => append(ring, 0, 3))).toBe('LAYERS_UNEVEN k');
    for (const layer of [0, 1]) append(ring, layer, 4);
    expect(ring.length).toBe(4);
    expect([0, 1, 2].map((l) => ring.layer(l).length)).toEqual([4, 4, 4]);
  });

  test('a step of no tokens is a step', () => {
    const ring = sequenceOf({ layers: 2, capacity: 10 });
    append(ring, 0, 0);
    expect(errorOf(() => append(ring, 1, 1))).toBe('LAYERS_UNEVEN k');
    append(ring, 1, 0);
    expect(ring.length).toBe(0);
    append(ring, 1, 1);
  });

  test('a layer ahead has evicted, the others have not', () => {
    const ring = sequenceOf({ layers: 2, capacity: 4, window: 4 });
    step(ring, 4);
    append(ring, 1, 3);
    expect([0, 1].map((l) => ring.layer(l).start)).toEqual([0, 3]);
    expect(ring.start).toBe(0);
    append(ring, 0, 3);
    expect(ring.start).toBe(3);
  });
});

describe('capacity without a window', () => {
  test('is reached exactly, then refused, and free again after a rollback', () => {
    const ring = sequenceOf({ capacity: 5 });
    step(ring, 3);
    expect(errorOf(() => step(ring, 3))).toBe('CAPACITY_EXCEEDED k');
    step(ring, 2);
    expect(errorOf(() => step(ring, 1))).toBe('CAPACITY_EXCEEDED k');
    step(ring, 0);
    ring.truncate(4);
    step(ring, 1);
    expect([ring.length, ring.start]).toEqual([5, 0]);
  });
});

describe('truncate', () => {
  test('anywhere while nothing was evicted', () => {
    const ring = sequenceOf({ capacity: 10, window: 8, slack: 0 });
    step(ring, 10);
    ring.truncate(0);
    step(ring, 10);
    expect([ring.length, ring.start]).toEqual([10, 0]);
  });

  test('within the slack of the largest length once something was', () => {
    const ring = sequenceOf({ capacity: 10, window: 6 });
    step(ring, 15);
    expect(ring.start).toBe(5);
    expect(errorOf(() => ring.truncate(10))).toBe('SLACK_EXCEEDED length');
    ring.truncate(11);
    expect([ring.length, ring.start]).toEqual([11, 5]);
    // The slack is counted from 15, the largest length so far, not from 11 or 14.
    step(ring, 3);
    expect(errorOf(() => ring.truncate(10))).toBe('SLACK_EXCEEDED length');
    ring.truncate(11);
    step(ring, 5);
    expect([ring.length, ring.start]).toEqual([16, 6]);
    expect(errorOf(() => ring.truncate(11))).toBe('SLACK_EXCEEDED length');
    ring.truncate(12);
  });

  test('names the shortest length and the oldest position', () => {
    const ring = sequenceOf({ capacity: 10, window: 6 });
    step(ring, 15);
    expect(() => ring.truncate(3)).toThrow(
      'Expected a length of at least 11 (the oldest position still held is 5) for length but received 3',
    );
  });

  test('drops a half-finished step, and what it evicted stays evicted', () => {
    const ring = sequenceOf({ layers: 2, capacity: 10, window: 6 });
    step(ring, 10);
    append(ring, 1, 3);
    ring.truncate(10);
    expect([ring.length, ring.start]).toEqual([10, 3]);
    expect([0, 1].map((l) => ring.layer(l).length)).toEqual([10, 10]);
    expect(errorOf(() => ring.truncate(8))).toBe('SLACK_EXCEEDED length');
    ring.truncate(9);
    step(ring, 2);
    expect([ring.length, ring.start]).toEqual([11, 3]);
  });

  test('cannot drop a half-finished step longer than the slack', () => {
    const ring = sequenceOf({ layers: 2, capacity: 10, window: 6 });
    step(ring, 10);
    append(ring, 0, 5);
    expect(errorOf(() => ring.truncate(10))).toBe('SLACK_EXCEEDED length');
    append(ring, 1, 5);
    expect(ring.length).toBe(15);
  });

  test.each([
    ['OUT_OF_RANGE length', 6],
    ['OUT_OF_RANGE length', -1],
    ['INVALID_ARGUMENT length', 1.5],
    ['NON_FINITE length', NaN],
    ['INVALID_ARGUMENT length', '3'],
  ])('refuses with %s: %p', (expected, length) => {
    const ring = sequenceOf({ capacity: 10 });
    step(ring, 5);
    expect(errorOf(() => ring.truncate(length as number))).toBe(expected);
    expect(ring.length).toBe(5);
  });
});
