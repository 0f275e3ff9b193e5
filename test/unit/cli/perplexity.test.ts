/** gqa perplexity on the embedded model. */
import { join } from 'node:path';
import { readGolden } from '../../support/golden';
import { goldenFolder } from '../../support/package';
import { gqa } from './cli-process';

const TEXT = join(goldenFolder, 'stories-sample.txt');
/** What the embedded model was made for. */
const CONTEXT = 512;
const golden = readGolden(join(goldenFolder, 'stories.json')).perplexity[0];

interface Row {
  k: string;
  v: string;
  rotated: string;
  recent: number | null;
  bitsPerValue: number;
  bytesPerToken: number;
  perplexity: number;
  change: number;
  divergence: number;
  tokensPerSecond: number;
  meanNll: number;
}

function measured(args: string[]): { rows: Row[]; machine: Record<string, unknown> } {
  const { status, stdout, stderr } = gqa(['perplexity', '--text', TEXT, ...args, '--json']);
  expect([status, stderr]).toEqual([0, '']);
  const { bench, machine, results } = JSON.parse(stdout);
  expect(bench).toBe('perplexity');
  return { rows: results, machine };
}

test('a row for each kind of cache, q4 with and without rotation, floats as exact as the reference', () => {
  const { rows, machine } = measured(['--tokens', String(golden.tokens)]);
  expect(machine).toMatchObject({ model: 'stories', tokens: golden.tokens, positions: 'absolute' });
  expect(rows.map(({ k, v, rotated }) => [k, v, rotated])).toEqual([
    ['f32', 'f32', ''],
    ['f16', 'f16', ''],
    ['bf16', 'bf16', ''],
    ['q8', 'q8', ''],
    ['q4', 'q4', 'K and V'],
    ['q4', 'q4', ''],
  ]);
  const [f32, f16, bf16, q8, q4] = rows;
  expect(Math.abs(f32.perplexity / golden.perplexity - 1)).toBeLessThan(5e-4);
  expect([f32.change, f32.divergence]).toEqual([0, 0]);
  expect([f32.bitsPerValue, f16.bitsPerValue, bf16.bitsPerValue]).toEqual([32, 16, 16]);
  expect(q8.bitsPerValue).toBeLessThanOrEqual(8.5);
  expect(q4.bitsPerValue).toBeLessThanOrEqual(5);
  for (const row of rows) {
    expect(row.perplexity).toBeCloseTo(Math.exp(row.meanNll), 9);
    expect(row.change).toBeCloseTo(row.perplexity / f32.perplexity - 1, 12);
    expect(row.tokensPerSecond).toBeGreaterThan(0);
  }
  // Coarser storage predicts ever more differently.
  for (const [finer, coarser] of [
    [f16, bf16],
    [f16, q8],
    [q8, q4],
  ]) {
    expect(finer.divergence).toBeGreaterThan(0);
    expect(coarser.divergence).toBeGreaterThan(finer.divergence);
  }
});

test('keys and values apart, recent tokens, rotation as asked', () => {
  const kinds = ['--kv-dtype', 'f16,q8/q4', '--rotate', 'both', '--recent', '64'];
  const { rows } = measured(['--tokens', '200', ...kinds]);
  expect(rows.map(({ k, v, rotated, recent }) => [k, v, rotated, recent])).toEqual([
    ['f16', 'f16', 'K and V', null],
    ['f16', 'f16', '', null],
    ['q8', 'q4', 'K and V', 64],
    ['q8', 'q4', '', 64],
  ]);
});

test('a windowed cache reads texts longer than the context, counting positions within itself', () => {
  const window = ['--kv-dtype', 'f32', '--window', '96', '--sink-tokens', '4'];
  const { rows, machine } = measured(['--tokens', '100000', ...window, '--positions', 'cache']);
  expect(machine).toMatchObject({ window: 96, sinkTokens: 4, positions: 'cache' });
  expect(machine.tokens).toBeGreaterThan(CONTEXT);
  expect(rows[0].perplexity).toBeGreaterThan(1);
  expect(rows[0].perplexity).toBeLessThan(3 * golden.perplexity);
});

test('the table is for people, and --format csv for spreadsheets', () => {
  const args = ['perplexity', '--text', TEXT, '--tokens', '80', '--kv-dtype', 'f32,f16'];
  const { status, stdout } = gqa(args);
  expect(status).toBe(0);
  expect(stdout).toMatch(/\| K +\| V +\|.*perplexity.*KL divergence/);
  expect(stdout).toMatch(/\| f16 +\| f16 +\|/);
  const csv = gqa([...args, '--format', 'csv'])
    .stdout.trim()
    .split('\n');
  expect(csv).toHaveLength(3);
  expect(csv[0]).toContain('bitsPerValue,bytesPerToken,perplexity,change,divergence');
});

describe('failures exit with 1 and say which', () => {
  test.each([
    [['--text', '/nowhere/at/all'], /^gqa: INVALID_ARGUMENT: .*--text.*\/nowhere\/at\/all/],
    [['--text', TEXT, '--model', '/nowhere/at/all'], /^gqa: [A-Z_]+: .*\/nowhere\/at\/all/],
    [['--text', TEXT, '--tokens', '2000'], /^gqa: CONTEXT_EXCEEDED: /],
  ])('%j', (args, message) => {
    const { status, stdout, stderr } = gqa(['perplexity', ...args]);
    expect([status, stdout]).toEqual([1, '']);
    expect(stderr).toMatch(message);
  });
});
