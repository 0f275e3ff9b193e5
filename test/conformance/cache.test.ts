/** Attention over a KvCache against every token ever appended: dtypes, chunks, wraps, windows, sinks, sequences. */
import { KvCache, Tensor } from '../../lib';
import { Random } from '../support/random';
import { axis } from '../support/samples';
import { UnboundedSequence, type CacheShape } from '../support/unbounded-cache';

const FLOATS = ['f32', 'f16', 'bf16'] as const;
const DTYPES = [...FLOATS, 'q8', 'q4'] as const;

function open(
  shape: CacheShape,
  capacity: number,
  seed: number,
): { cache: KvCache; sequence: UnboundedSequence } {
  const cache = new KvCache({ ...shape, capacity });
  return { cache, sequence: new UnboundedSequence(shape, cache.sequence(), new Random(seed)) };
}

describe.each(DTYPES)('%s', (dtype) => {
  const base: CacheShape = { layers: 1, kvHeads: 2, headDim: 16, dtype };

  test.each(axis([1, 2, 3, 5, 8, 17, 33, 64, 80, 127, 192, 576]))('head dim %i', (headDim) => {
    const { sequence, cache } = open({ ...base, headDim }, 150, headDim);
    for (const tokens of [70, 1, 1, 5, 40]) {
      sequence.append(tokens);
      sequence.check(0, Math.min(tokens, 7), 3);
    }
    cache.dispose();
  });

  test.each(axis([1, 2, 3, 4, 5, 6, 7, 8, 16, 48, 71]))('group of %i', (group) => {
    const { sequence } = open({ ...base, kvHeads: 1 }, 200, group);
    sequence.append(130);
    for (const queries of [1, 2, 9]) sequence.check(0, queries, group);
  });

  test.each(axis([1, 15, 16, 17, 63, 64, 65, 100, 129]))(
    'filled to a capacity of %i',
    (capacity) => {
      const { sequence } = open(base, capacity, capacity);
      while (sequence.length < capacity) {
        sequence.append(Math.min(29, capacity - sequence.length));
        sequence.check(0, 1, 2);
      }
      sequence.check(0, capacity, 2);
      sequence.check(0, capacity, 2, { causal: false });
    },
  );

  test.each([
    [1, 0],
    [1, 3],
    [5, 0],
    [5, 4],
    [16, 16],
    [64, 0],
    [64, 20],
    [100, 1],
  ])('token by token through wraps, window %i, %i sink tokens', (window, sinkTokens) => {
    const capacity = window + sinkTokens;
    const { sequence } = open({ ...base, window, sinkTokens }, capacity, window);
    for (let t = 0; t < 3 * capacity + 70; t++) {
      sequence.append(1);
      if (t % 7 === 0 || t < 20) sequence.check(0, 1, 2);
    }
    expect(sequence.sequence.length).toBe(3 * capacity + 70);
  });

  test('chunks through wraps, several rows each', () => {
    const { sequence } = open({ ...base, window: 40, sinkTokens: 5 }, 100, 7);
    for (const chunk of [3, 30, 1, 17, 55, 2, 55, 16, 33, 54, 5]) {
      sequence.append(chunk);
      sequence.check(0, chunk, 3);
    }
  });

  test('a chunk larger than the window, than the capacity, than twice the capacity', () => {
    const { sequence } = open({ ...base, window: 10, sinkTokens: 3 }, 40, 8);
    for (const chunk of [12, 45, 100, 1, 301, 2]) {
      sequence.append(chunk);
      sequence.check(0, 1, 2);
      sequence.check(0, Math.min(chunk, 5), 2);
    }
  });

  test('every feature, before and after wraps', () => {
    const { sequence } = open({ ...base, window: 30, sinkTokens: 6 }, 70, 13);
    for (const chunk of [5, 40, 33, 90, 1]) {
      sequence.append(chunk);
      for (const queries of [1, 4, 30]) {
        if (queries <= chunk) sequence.check(0, queries, 5, { features: true });
      }
    }
    sequence.check(0, 2, 3, { features: true, causal: false, softcap: 2 });
  });

  test('values narrower and wider than keys', () => {
    for (const valueDim of [1, 7, 24, 100]) {
      const { sequence, cache } = open({ ...base, valueDim }, 90, valueDim);
      sequence.append(80);
      for (const queries of [1, 3, 20]) sequence.check(0, queries, 3);
      cache.dispose();
    }
  });

  test('an option narrows the cache window and sinks', () => {
    const { sequence } = open({ ...base, window: 30, sinkTokens: 6 }, 60, 9);
    sequence.append(100);
    sequence.check(0, 3, 2, { window: 4 });
    sequence.check(0, 3, 2, { window: 4, sinkTokens: 2 });
    sequence.check(0, 3, 2, { sinkTokens: 0 });
    sequence.check(0, 3, 2, { softcap: 3 });
  });

  test('layers and sequences do not touch each other', () => {
    const shape: CacheShape = { ...base, layers: 3, window: 20, sinkTokens: 2 };
    const cache = new KvCache({ ...shape, capacity: 50, sequences: 3 });
    const random = new Random(10);
    const all = [0, 1, 2].map(() => new UnboundedSequence(shape, cache.sequence(), random));
    for (let step = 0; step < 25; step++) {
      const one = random.pick(all);
      one.append(random.int(1, 30));
      for (const s of all) {
        if (s.length > 0) for (let layer = 0; layer < 3; layer++) s.check(layer, 1, 2);
      }
    }
  });

  test('truncated within the slack and appended again', () => {
    const { sequence } = open({ ...base, window: 16, sinkTokens: 4 }, 100, 11);
    for (const [append, back] of [
      [50, 10],
      [90, 70],
      [30, 25],
      [64, 60],
      [300, 80],
      [1, 1],
      [100, 79],
    ] as const) {
      sequence.append(append);
      sequence.check(0, 3, 2);
      sequence.truncate(sequence.length - back);
      sequence.check(0, 1, 2);
      sequence.append(3);
      sequence.check(0, 2, 2);
    }
  });

  test('a disposed sequence frees its place for a clean one', () => {
    const cache = new KvCache({ ...base, capacity: 70, sequences: 1 });
    for (let round = 0; round < 4; round++) {
      const sequence = new UnboundedSequence(base, cache.sequence(), new Random(round));
      sequence.append(10 + 20 * round);
      sequence.check(0, 1, 2);
      sequence.sequence.dispose();
    }
  });
});

test('positions beyond 2^32', () => {
  for (const dtype of DTYPES) {
    const shape: CacheShape = {
      layers: 1,
      kvHeads: 1,
      headDim: 4,
      dtype,
      window: 20,
      sinkTokens: 3,
    };
    const { sequence, cache } = open(shape, 64, 14);
    sequence.append(40);
    // The oracle's sinks stay; of what comes between, the window forgets all but the newest, zeros in whole blocks.
    const many = Tensor.zeros([2 ** 22, 1, 4], 'f16');
    while (sequence.sequence.length < 2 ** 32) sequence.sequence.append(0, many, many);
    const { length } = sequence.sequence;
    expect(length).toBeGreaterThan(2 ** 32);
    sequence.appendedZeros(128);
    sequence.append(50);
    expect(sequence.sequence.length).toBe(length + 50);
    expect(sequence.sequence.start).toBe(length + 50 - 61);
    for (const queries of [1, 5, 30]) sequence.check(0, queries, 2);
    sequence.sequence.truncate(length + 50 - 40);
    expect(sequence.sequence.length).toBe(length + 10);
    cache.dispose();
  }
});

test.each(DTYPES)('a cache of %s, queries and tokens of every dtype', (dtype) => {
  for (const tokens of FLOATS) {
    const { sequence } = open({ layers: 1, kvHeads: 3, headDim: 64, dtype }, 200, 12);
    sequence.append(70, tokens);
    sequence.append(60);
    for (const queries of [1, 5, 40]) sequence.check(0, queries, 3, {}, tokens);
  }
});

test.each(DTYPES)('precision fast over a cache of %s', (dtype) => {
  for (const queryDtype of FLOATS) {
    const { sequence } = open({ layers: 1, kvHeads: 2, headDim: 40, dtype, window: 150 }, 200, 13);
    sequence.append(190);
    for (const queries of [1, 7, 40]) {
      for (const options of [{}, { features: true }, { softcap: 5, window: 33 }]) {
        sequence.check(0, queries, 5, { ...options, precision: 'fast' }, queryDtype);
      }
    }
  }
});
