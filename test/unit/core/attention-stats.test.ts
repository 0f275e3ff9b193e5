/** The object that takes statistics: its memory, shapes, derived numbers and life. */
import { attention, attentionAsync, AttentionStats, Tensor } from '../../../lib';
import { Random } from '../../support/random';
import { expectRefused } from '../../support/refusals';

function tensors(batch: number, queries: number, keys: number): Tensor<'f32'>[] {
  const random = new Random(3);
  return [
    [batch, queries, 4, 8],
    [batch, keys, 2, 8],
    [batch, keys, 2, 8],
  ].map((shape) => Tensor.from(random.normals(shape.reduce((a, b) => a * b)), shape));
}

function observe(stats: AttentionStats, batch: number, queries: number, keys: number): void {
  const [q, k, v] = tensors(batch, queries, keys);
  attention(q, k, v, { stats });
}

test('memory grows to the largest call and is used again', () => {
  const stats = new AttentionStats();
  expect([stats.shape, stats.entropy.length]).toEqual([[0, 0, 0], 0]);
  observe(stats, 2, 3, 5);
  expect(stats.shape).toEqual([2, 3, 4]);
  const { entropy } = stats;
  expect(entropy).toHaveLength(24);
  observe(stats, 2, 3, 5);
  expect(stats.entropy).toBe(entropy);
  observe(stats, 1, 1, 5);
  expect(stats.entropy).toHaveLength(4);
  expect(stats.entropy.buffer).toBe(entropy.buffer);
  expect(stats.visible).toEqual(Float32Array.from([5, 5, 5, 5]));
});

test('effective context: n keys of equal weight, one key, none', () => {
  const stats = new AttentionStats();
  const [, k, v] = tensors(1, 1, 37);
  attention(Tensor.zeros([1, 1, 4, 8]), k, v, { stats });
  for (const x of stats.entropy) expect(x).toBeCloseTo(1, 5);
  for (const x of stats.effectiveContext) expect(x).toBeCloseTo(37, 3);
  observe(stats, 1, 1, 1);
  expect([...stats.entropy, ...stats.effectiveContext]).toEqual([0, 0, 0, 0, 1, 1, 1, 1]);
  observe(stats, 1, 1, 0);
  expect([...stats.maxLogit]).toEqual(new Array(4).fill(-Infinity));
  const zeros = [stats.entropy, stats.sinkMass, stats.recentMass, stats.visible];
  for (const values of [...zeros, stats.effectiveContext]) {
    expect([...values]).toEqual([0, 0, 0, 0]);
  }
});

test('busy while an async call writes it, then filled; disposed for good', async () => {
  const stats = new AttentionStats({ sinkTokens: 1 });
  const [q, k, v] = tensors(1, 2, 9);
  const running = attentionAsync(q, k, v, { stats });
  await expectRefused('BUSY', 'stats', () => stats.entropy);
  await expectRefused('BUSY', 'stats', () => stats.dispose());
  const others = tensors(1, 2, 9);
  await expectRefused('BUSY', 'options.stats', () =>
    attention(others[0], others[1], others[2], { stats }),
  );
  await running;
  expect(stats.visible).toEqual(new Float32Array(8).fill(9));
  stats.dispose();
  stats.dispose();
  await expectRefused('DISPOSED', 'stats', () => stats.maxLogit);
  await expectRefused('DISPOSED', 'options.stats', () => attention(q, k, v, { stats }));
});
