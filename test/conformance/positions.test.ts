/**
 * Positions counted within what a query sees (StreamingLLM), against the definition: keys kept as they came, and turned at
 * every query to their slot among the sinks and the window.
 */
import { attention, KvCache, Rope } from '../../lib';
import type { CacheDType, KvSequence } from '../../lib';
import { attentionOracle } from '../oracle';
import { Random } from '../support/random';
import { expectClose } from '../support/compare';
import { f32Tensor, normals } from '../support/tensors';
import { attentionTolerance } from '../tolerances';

const HEADS = 4;
const KV_HEADS = 2;
const HEAD_DIM = 16;
const THETA = 10_000;

/** x [heads, HEAD_DIM] turned to a position, halves as pairs, float64. */
function turned(x: number[], position: number): number[] {
  const half = HEAD_DIM / 2;
  return x.map((value, i) => {
    const [d, pair] = [i % HEAD_DIM, (i % HEAD_DIM) % half];
    const angle = position * THETA ** ((-2 * pair) / HEAD_DIM);
    const partner = d < half ? -x[i + half] : x[i - half];
    return value * Math.cos(angle) + partner * Math.sin(angle);
  });
}

class Stream {
  private readonly keys: number[][] = [];
  private readonly values: number[][] = [];
  readonly sequence: KvSequence;

  constructor(
    private readonly random: Random,
    private readonly window: number,
    private readonly sinkTokens: number,
    dtype: CacheDType,
    capacity: number,
  ) {
    const rope = new Rope({ headDim: HEAD_DIM, theta: THETA });
    const shape = { layers: 1, kvHeads: KV_HEADS, headDim: HEAD_DIM, capacity, window, sinkTokens };
    this.sequence = new KvCache({ ...shape, dtype, positions: 'cache', rope }).sequence();
  }

  append(tokens: number): void {
    const width = KV_HEADS * HEAD_DIM;
    const [k, v] = [0, 1].map(() => normals(this.random, tokens * width, 'f32'));
    const shape = [tokens, KV_HEADS, HEAD_DIM];
    this.sequence.append(0, f32Tensor(k, shape), f32Tensor(v, shape));
    for (let t = 0; t < tokens; t++) {
      this.keys.push(k.slice(t * width, (t + 1) * width));
      this.values.push(v.slice(t * width, (t + 1) * width));
    }
  }

  check(rows: number): void {
    const width = HEADS * HEAD_DIM;
    const q = normals(this.random, rows * width, 'f32');
    const out = attention(f32Tensor(q, [1, rows, HEADS, HEAD_DIM]), this.sequence.layer(0));
    expect(this.sequence.length).toBe(this.keys.length);
    for (let row = 0; row < rows; row++) {
      const kept = this.keptBy(this.keys.length - rows + row);
      const expected = attentionOracle({
        q: turned(q.slice(row * width, (row + 1) * width), kept.length - 1),
        k: kept.flatMap((position, slot) => turned(this.keys[position], slot)),
        v: kept.flatMap((position) => this.values[position]),
        batch: 1,
        queryTokens: 1,
        keyTokens: kept.length,
        heads: HEADS,
        kvHeads: KV_HEADS,
        headDim: HEAD_DIM,
        valueDim: HEAD_DIM,
      });
      const actual = Array.from(out.data.slice(row * width, (row + 1) * width));
      const what = `row ${row} of ${rows} after ${this.keys.length} tokens`;
      expectClose(what, actual, expected.out, attentionTolerance('f32', expected.largestScore));
    }
  }

  /** Positions that a row sees: sinks, then its window. */
  private keptBy(position: number): number[] {
    const first = Math.max(this.sinkTokens, position - this.window + 1);
    const all = Array.from({ length: position + 1 }, (_, i) => i);
    return all.filter((i) => i < this.sinkTokens || i >= first);
  }
}

test.each([
  [20, 4, 40],
  [16, 0, 20],
  [64, 1, 100],
  [5, 70, 90],
])('window %i, %i sinks, capacity %i', (window, sinkTokens, capacity) => {
  const stream = new Stream(new Random(window), window, sinkTokens, 'f32', capacity);
  for (const tokens of [1, 3, 12, 9, 1, 1, 30, 7, 1, 90, 2, 400, 1]) {
    stream.append(tokens);
    stream.check(1);
    const slack = capacity - window - sinkTokens;
    stream.check(Math.min(tokens, slack + 1, stream.sequence.length));
  }
});

test('100,000 tokens through a cache of 1,024', () => {
  const [window, sinkTokens, capacity] = [956, 4, 1024];
  const stream = new Stream(new Random(1), window, sinkTokens, 'f32', capacity);
  for (let chunk = 0; stream.sequence.length < 100_000; chunk++) {
    stream.append(Math.min([64, 1, 900, 5000][chunk % 4], 100_000 - stream.sequence.length));
  }
  stream.check(1);
  stream.check(5);
});

test('a quantised cache turns keys before it quantises them', () => {
  const rope = new Rope({ headDim: HEAD_DIM, theta: THETA });
  const shape = { layers: 1, kvHeads: KV_HEADS, headDim: HEAD_DIM, capacity: 300, window: 200 };
  const options = { ...shape, sinkTokens: 4, positions: 'cache' as const, rope };
  const random = new Random(8);
  const rows = [0, 1].map(() => normals(random, 290 * KV_HEADS * HEAD_DIM, 'f32'));
  const [k, v] = rows.map((data) => f32Tensor(data, [290, KV_HEADS, HEAD_DIM]));
  const q = f32Tensor(normals(random, HEADS * HEAD_DIM, 'f32'), [1, 1, HEADS, HEAD_DIM]);
  const [f32, q8] = (['f32', 'q8'] as const).map((dtype) => {
    const sequence = new KvCache({ ...options, dtype }).sequence();
    sequence.append(0, k, v);
    return attention(q, sequence.layer(0));
  });
  expectClose('q8', [...q8.data], [...f32.data], 0.01);
});
