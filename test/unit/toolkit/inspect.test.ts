/** gqa inspect: its figures against the oracle and the runner, its verdicts, its three forms. */
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { inspectModel, Monitor, type InspectReport } from '../../../lib';
import { loadArchitecture } from '../../../lib/model/arch';
import { openCheckpoint } from '../../../lib/model/checkpoint';
import { embeddedModel } from '../../../lib/model/embedded';
import { readCorpus } from '../../../lib/toolkit/corpus';
import { smallerCounts } from '../../../lib/toolkit/observe/grouping-errors';
import { observeWindows } from '../../../lib/toolkit/observe/observe-windows';
import { checkRule, rankCorrelation, verdictOf } from '../../../lib/toolkit/observe/verdict';
import { goldenFolder } from '../../support/package';
import { expectRefused } from '../../support/refusals';
import { gqa } from '../cli/cli-process';

const TEXT = join(goldenFolder, 'stories-sample.txt');
const WINDOW = 128;
const TOKENS = 512;
const folder = mkdtempSync(join(tmpdir(), 'gqa-inspect-'));
afterAll(() => rmSync(folder, { recursive: true }));

test('statistics are those of the model run window by window; every grouping is measured', async () => {
  const stages = new Set<string>();
  const report = await inspectModel(embeddedModel.path, {
    ...{ text: TEXT, window: WINDOW, maxTokens: TOKENS },
    onProgress: ({ stage }) => stages.add(stage),
  });
  expect(stages).toContain('inspecting layers');
  expect(report.text).toMatchObject({ path: TEXT, tokens: TOKENS, windows: 4, window: WINDOW });

  const { config, weights, tokenizer } = openCheckpoint(embeddedModel.path);
  const model = loadArchitecture(config, weights);
  const { windows } = readCorpus(TEXT, tokenizer(), { window: WINDOW, maxTokens: TOKENS });
  const monitor = new Monitor({ ...config, kvHeads: config.layerKvHeads });
  observeWindows(model, windows, monitor);
  model.dispose();
  weights.close();
  const { layers } = monitor.toJSON();
  expect(report.layers).toHaveLength(config.layers);
  for (const [i, layer] of report.layers.entries()) {
    layer.heads.forEach(({ rows, entropy, sinkMass, effectiveContext, maxLogit }, h) => {
      const other = layers[i].heads[h];
      expect(rows).toBe(other.rows);
      expect(entropy.mean).toBeCloseTo(other.entropy.mean, 4);
      expect(sinkMass.mean).toBeCloseTo(other.sinkMass.mean, 4);
      expect(effectiveContext.mean / other.effectiveContext.mean).toBeCloseTo(1, 3);
      expect(maxLogit).toBeCloseTo(other.maxLogit, 2);
    });
    const counts = smallerCounts(layer.kvHeads).slice(0, 3);
    expect(layer.groupings.map(({ kvHeads }) => kvHeads)).toEqual(counts);
    for (const { kvHeads, groups, outputError, similarity } of layer.groupings) {
      expect(groups.flat().sort((a, b) => a - b)).toEqual([...Array(layer.kvHeads).keys()]);
      expect(groups).toHaveLength(kvHeads);
      expect(outputError).toBeGreaterThan(0);
      expect(similarity).toBeLessThan(1);
    }
    const { plain, aligned } = layer.likeness;
    for (const part of ['key', 'value'] as const) {
      aligned[part].forEach((row, a) =>
        row.forEach((value, b) => {
          // Turning heads can only bring them nearer.
          expect(value).toBeGreaterThanOrEqual(Math.abs(plain[part][a][b]) - 1e-5);
          expect(value).toBeLessThanOrEqual(1 + 1e-5);
        }),
      );
    }
  }
});

test('as a command: a table, JSON, and a page that fetches nothing', () => {
  const page = join(folder, 'page.html');
  const args = ['inspect', embeddedModel.path, '--text', TEXT, '--tokens', '256', '--window', '64'];
  const table = gqa([...args, '--groupings', '1', '--heads', '--html', page]);
  expect([table.status, table.stderr]).toEqual([0, '']);
  expect(table.stdout).toMatch(/\| layer \| KV heads \| entropy \|/);
  expect(table.stdout).toContain('Entropy below 3.5 means safe to group');
  const html = readFileSync(page, 'utf8');
  expect(html).toContain('Normalised entropy');
  expect(html).not.toMatch(/<script|src=|https?:\/\/(?!www\.w3\.org)/);
  const json = gqa([...args, '--groupings', '0', '--json']);
  const report = JSON.parse(json.stdout) as InspectReport;
  expect(report.layers[0]).toMatchObject({ verdict: 'single', groupings: [] });
  const unwritable = gqa([
    ...args,
    '--groupings',
    '0',
    '--html',
    join(folder, 'none', 'page.html'),
  ]);
  expect([unwritable.status, unwritable.stdout]).toEqual([1, '']);
  expect(unwritable.stderr).toContain('WRITE_FAILED');
});

test('verdicts by measured error; the rule judged by it', () => {
  expect([0.1, 0.3, 0.6, null].map(verdictOf)).toEqual(['cheap', 'fair', 'costly', 'single']);
  expect(rankCorrelation([1, 2, 3, 4], [10, 20, 30, 5])).toBeCloseTo(-0.2, 10);
  expect(rankCorrelation([1, 1, 1], [1, 2, 3])).toBe(0);
  const row = (entropyNats: number, outputError: number) => ({
    entropyNats,
    outputError,
    similarity: 1 - outputError,
  });
  const rule = checkRule([row(2, 0.7), row(3, 0.6), row(5, 0.1), row(4, 0.4)]);
  expect(rule).toMatchObject({ safe: 2, layers: 4, safeButCostly: 2, cheapButUnsafe: 1 });
  expect(rule.similarityCorrelation).toBeCloseTo(-1, 10);
  expect(rule.entropyCorrelation).toBeLessThan(0);
});

test('refuses what it cannot read, and stops when asked', async () => {
  const empty = join(folder, 'empty.txt');
  writeFileSync(empty, ' \n');
  const inspect = (more: object) => () => inspectModel(embeddedModel.path, { text: TEXT, ...more });
  await expectRefused('INVALID_TEXT', empty, inspect({ text: empty }));
  await expectRefused('INVALID_ARGUMENT', 'options.text', inspect({ text: 4 }));
  await expectRefused('OUT_OF_RANGE', 'options.window', inspect({ window: 1 }));
  await expectRefused('INVALID_ARGUMENT', 'path', () => inspectModel('/nowhere', { text: TEXT }));
  const controller = new AbortController();
  controller.abort(new Error('enough'));
  await expect(inspect({ signal: controller.signal })()).rejects.toThrow('enough');
});
