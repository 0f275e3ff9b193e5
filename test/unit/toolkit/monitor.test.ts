/** A Monitor: means over steps, spreads and their alarm, exports, and a whole model under it. */
import { Registry } from 'prom-client';
import { attention, Monitor, Tensor, type SpreadAlarm } from '../../../lib';
import { loadArchitecture } from '../../../lib/model/arch';
import { openCheckpoint } from '../../../lib/model/checkpoint';
import { embeddedModel } from '../../../lib/model/embedded';
import { observeWindows } from '../../../lib/toolkit/observe/observe-windows';
import { Random } from '../../support/random';
import { expectRefused } from '../../support/refusals';

const HEADS = 4;
const DIM = 8;

/** `sharp` query heads look at one key, the others at all alike. */
function queries(sharp: readonly boolean[], tokens = 1): Tensor<'f32'> {
  const values = Array.from({ length: tokens }, () =>
    sharp.flatMap((s) => Array.from({ length: DIM }, (_, d) => (s && d === 0 ? 100 : 0))),
  );
  return Tensor.from(values.flat(), [1, tokens, sharp.length, DIM]);
}

function keys(tokens: number): Tensor<'f32'> {
  const values = Array.from({ length: tokens * 2 * DIM }, (_, i) => (i === 0 || i === DIM ? 1 : 0));
  return Tensor.from(values, [1, tokens, 2, DIM]);
}

function step(monitor: Monitor, layer: number, sharp: readonly boolean[], tokens: number): void {
  attention(queries(sharp), keys(tokens), keys(tokens), { stats: monitor.layers[layer] });
  monitor.record(layer);
}

test('mean, least and most over steps; rows that see one key do not count', () => {
  const monitor = new Monitor({ layers: 2, heads: HEADS, kvHeads: 2, sinkTokens: 1 });
  const none = [false, false, false, false];
  step(monitor, 0, none, 1);
  step(monitor, 0, none, 4);
  step(monitor, 0, [true, false, false, false], 8);
  const { layers } = monitor.toJSON();
  const [head, other] = layers[0].heads;
  expect([head.rows, head.head, layers[1].heads[0].rows]).toEqual([2, 0, 0]);
  expect(head.entropy.mean).toBeCloseTo(0.5, 5);
  expect([head.entropy.min, head.entropy.max].map((x) => x.toFixed(4))).toEqual([
    '0.0000',
    '1.0000',
  ]);
  expect(head.sinkMass.mean).toBeCloseTo((1 / 4 + 1) / 2, 5);
  expect(other.sinkMass.mean).toBeCloseTo((1 / 4 + 1 / 8) / 2, 5);
  expect(other.effectiveContext.mean).toBeCloseTo((4 + 8) / 2, 3);
  expect(head.maxLogit).toBeCloseTo(100 / Math.sqrt(DIM), 3);
  expect(other.maxLogit).toBe(0);
  expect(layers[0].groups.map(({ spread }) => spread.toFixed(3))).toEqual(['0.500', '0.000']);
});

test('the alarm sounds once for each time a spread crosses it', () => {
  const alarms: SpreadAlarm[] = [];
  const monitor = new Monitor({
    ...{ layers: 1, heads: HEADS, kvHeads: [2], spreadAlarm: 0.3 },
    onAlarm: (alarm) => alarms.push(alarm),
  });
  const split = [false, false, true, false];
  step(monitor, 0, split, 9);
  step(monitor, 0, split, 9);
  expect(alarms).toEqual([{ layer: 0, group: 1, spread: expect.closeTo(1, 5) as number }]);
  // Both heads alike: the mean spread falls to 2/7, then rises again.
  for (let i = 0; i < 5; i++) step(monitor, 0, [true, true, true, true], 9);
  expect(monitor.toJSON().layers[0].groups[1].alarm).toBe(false);
  step(monitor, 0, split, 9);
  expect([alarms.length, monitor.alarms]).toEqual([2, 2]);
  monitor.reset();
  expect([monitor.alarms, monitor.toJSON().layers[0].heads[0].rows]).toEqual([0, 0]);
});

test('Prometheus text, from a registry of its own and from the caller’s', async () => {
  const monitor = new Monitor({ layers: 2, heads: HEADS, kvHeads: 2 });
  step(monitor, 1, [true, false, false, false], 8);
  const text = await monitor.prometheus();
  expect(text).toContain('# TYPE gqa_attention_entropy gauge');
  expect(text).toMatch(/^gqa_attention_entropy\{layer="1",head="1",of="mean"\} (1|0\.99999\d*)$/m);
  expect(text).toMatch(/^gqa_attention_max_logit\{layer="1",head="0"\} 35\.355/m);
  expect(text).toMatch(
    /^gqa_attention_group_entropy_spread\{layer="1",group="0"\} (1|0\.9999\d*)$/m,
  );
  expect(text).toContain('gqa_attention_spread_alarms 1');
  expect(text).toContain('gqa_attention_rows{layer="0"} 0');
  expect(text).not.toContain('gqa_attention_entropy{layer="0"');
  const registry = new Registry();
  monitor.register(registry, 'mine_');
  step(monitor, 0, [false, false, false, false], 8);
  expect(await registry.metrics()).toContain('mine_rows{layer="0"} 1');
});

test('a model: every row of every window, the same statistics however the text is cut', () => {
  const { config, weights } = openCheckpoint(embeddedModel.path);
  const model = loadArchitecture(config, weights);
  const { layers, heads, kvHeads } = config;
  const random = new Random(2);
  const ids = Array.from({ length: 300 }, () => random.int(3, config.vocabSize - 1));
  const monitor = new Monitor({ layers, heads, kvHeads });
  expect(observeWindows(model, [ids, ids.slice(0, 40)], monitor)).toBe(true);
  const report = monitor.toJSON();
  expect(report.layers.map((layer) => layer.heads[0].rows)).toEqual(
    new Array(layers).fill(299 + 39),
  );
  // Token by token into the cache.
  const single = new Monitor({ layers, heads, kvHeads });
  const sequence = model.createCache({ capacity: 40 }).sequence();
  for (const id of ids.slice(0, 40)) model.forward([id], sequence, 'last', undefined, single);
  const whole = new Monitor({ layers, heads, kvHeads });
  observeWindows(model, [ids.slice(0, 40)], whole);
  single.toJSON().layers.forEach((layer, i) => {
    layer.heads.forEach(({ entropy, maxLogit, recentMass }, h) => {
      const other = whole.toJSON().layers[i].heads[h];
      expect(entropy.mean).toBeCloseTo(other.entropy.mean, 4);
      expect(recentMass.mean).toBeCloseTo(other.recentMass.mean, 4);
      expect(maxLogit).toBeCloseTo(other.maxLogit, 3);
    });
  });
  expect(observeWindows(model, [ids], monitor, () => true)).toBe(false);
  model.dispose();
  weights.close();
});

test('refuses numbers that do not fit', async () => {
  const options = { layers: 2, heads: HEADS, kvHeads: 2 };
  const make = (more: object) => () => new Monitor({ ...options, ...more });
  await expectRefused('OUT_OF_RANGE', 'options.layers', make({ layers: 0 }));
  await expectRefused('HEADS_NOT_DIVISIBLE', 'options.kvHeads', make({ kvHeads: [2, 3] }));
  await expectRefused('INVALID_SHAPE', 'options.kvHeads', make({ kvHeads: [2] }));
  await expectRefused('INVALID_ARGUMENT', 'options.onAlarm', make({ onAlarm: 1 }));
  await expectRefused('NON_FINITE', 'options.spreadAlarm', make({ spreadAlarm: NaN }));
  const monitor = new Monitor(options);
  await expectRefused('OUT_OF_RANGE', 'layer', () => monitor.record(2));
  await expectRefused('INVALID_SHAPE', 'layers[0]', () => monitor.record(0));
});
