/** gqa bench on tiny cases: what it measures is checked against float64 by itself; here, that its numbers belong together. */
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { gqa } from './cli-process';

function bench(args: string[]) {
  const { status, stdout, stderr } = gqa(['bench', ...args, '--seconds', '0.01', '--json']);
  expect([status, stderr]).toEqual([0, expect.any(String)]);
  return { ...JSON.parse(stdout), stderr };
}

test('attention: a row for each combination, percentages of the limits beside them', () => {
  const sweep = [
    '--heads',
    '4/2/8,3/1/16',
    '--context',
    '33',
    '--dtype',
    'f32,bf16',
    '--threads',
    '1',
  ];
  const {
    bench: name,
    machine,
    results,
    stderr,
  } = bench([...sweep, '--op', 'decode,prefill,prefill-cache']);
  expect(name).toBe('attention');
  expect(machine).toMatchObject({ backend: expect.any(String), isa: expect.any(String) });
  expect(results).toHaveLength(3 * 2 * 2);
  expect(stderr.trim().split('\n')).toHaveLength(results.length);
  const cases = results.map((r: Record<string, string>) => `${r.op} ${r.heads} ${r.dtype}`);
  expect(new Set(cases).size).toBe(results.length);
  for (const row of results) {
    const [heads, kvHeads, headDim] = row.heads.split('/').map(Number);
    const seconds = row.medianMicroseconds / 1e6;
    const pairs = row.op === 'decode' ? 33 : (33 * 34) / 2;
    const bytes =
      row.op === 'decode' ? 2 * kvHeads * headDim * 33 * (row.dtype === 'f32' ? 4 : 2) : 0;
    const flop = 4 * heads * headDim * pairs;
    const ideal = Math.max(
      bytes / (row.readLimitGigabytesPerSecond * 1e9),
      flop / (row.fmaPeakGigaflops * 1e9),
    );
    expect(row.gigaflops).toBeCloseTo(flop / seconds / 1e9, 6);
    expect(row.roofline).toBeCloseTo(ideal / seconds, 6);
    expect(row.p10Microseconds).toBeLessThanOrEqual(row.medianMicroseconds);
    expect(row.p90Microseconds).toBeGreaterThanOrEqual(row.medianMicroseconds);
    expect(row.error).toBeLessThan(row.dtype === 'f32' ? 2e-6 : 1.6e-2);
    expect(row.samples).toBeGreaterThanOrEqual(3);
  }
});

test('linear: every dtype of weights, rounded activations where they differ', () => {
  const shape = ['--shape', '24x64', '--tokens', '3', '--threads', '1'];
  const { bench: name, results } = bench(['linear', ...shape]);
  expect(name).toBe('linear');
  const kinds = results.map((r: Record<string, string>) => `${r.dtype} ${r.precision}`);
  expect(results).toHaveLength(6 + 4);
  expect(new Set(kinds).size).toBe(6 + 4);
  expect(kinds).not.toContain('f32 fast');
  for (const row of results) {
    expect(row.shape).toBe('24x64');
    const flop = 2 * 24 * 64 * row.tokens;
    expect(row.gigaflops).toBeCloseTo(flop / (row.medianMicroseconds * 1e3), 6);
    expect(row.error).toBeLessThan(row.precision === 'exact' ? 1e-5 : 3e-2);
  }
});

test('model', () => {
  const { results } = bench(['model', '--context', '4,12', '--tokens', '8', '--threads', '1']);
  const kinds = results.map((row: Record<string, unknown>) => [row.precision, row.context]);
  expect(kinds).toEqual([
    ['exact', 4],
    ['exact', 12],
    ['fast', 4],
    ['fast', 12],
  ]);
  expect(results.map((row: { dtype: string }) => row.dtype)).toEqual([
    'f32',
    'f32',
    'bf16',
    'bf16',
  ]);
  for (const row of results) {
    expect(row.promptTokensPerSecond).toBeGreaterThan(0);
    expect(row.runs).toBeGreaterThanOrEqual(3);
  }
});

test('Markdown is the default, CSV on request', () => {
  const tiny = [
    'bench',
    'linear',
    '--shape',
    '8x8',
    '--tokens',
    '2',
    '--dtype',
    'f16',
    '--threads',
    '1',
  ];
  const markdown = gqa([...tiny, '--seconds', '0.01']);
  expect(markdown.stdout).toMatch(/^gqa: .*\n\n\| out x in .*\n\| -+ .*\n\| 8x8 .*\n\n/);
  const csv = gqa([...tiny, '--seconds', '0.01', '--format', 'csv']);
  const [head, row, ...rest] = csv.stdout.trimEnd().split('\n');
  expect(rest).toEqual([]);
  expect(head).toContain(',shape,tokens,dtype,precision,threads,medianMicroseconds,');
  expect(row).toContain(',8x8,2,f16,exact,1,');
});

test('--out keeps the table in every form', () => {
  const folder = mkdtempSync(join(tmpdir(), 'gqa-bench-'));
  try {
    const tiny = ['linear', '--shape', '8x8', '--tokens', '2', '--dtype', 'f32', '--threads', '1'];
    const { results } = bench([...tiny, '--out', folder]);
    const read = (form: string) => readFileSync(join(folder, `linear.${form}`), 'utf8');
    expect(JSON.parse(read('json')).results).toEqual(results);
    expect(read('html')).toContain('<svg');
    expect(read('md')).toContain('| 8x8 ');
    expect(read('csv')).toContain(',8x8,');
  } finally {
    rmSync(folder, { recursive: true });
  }
});

test('caches of q8 and q4: a share of four times the FMA peak, prefill of tensors left out', () => {
  const { results } = bench([
    ...['--heads', '4/2/32', '--context', '40', '--dtype', 'q8,q4', '--threads', '1'],
    ...['--op', 'decode,prefill,prefill-cache'],
  ]);
  const kinds = results.map((row: Record<string, string>) => `${row.op} ${row.dtype}`);
  expect(kinds).toEqual(['decode q8', 'decode q4', 'prefill-cache q8', 'prefill-cache q4']);
  for (const row of results) {
    expect(row.peakGigaflops).toBeCloseTo(4 * row.fmaPeakGigaflops, 6);
    expect(row.error).toBeLessThan(row.dtype === 'q8' ? 0.03 : 0.35);
    const bits = row.dtype === 'q8' ? 8.5 : 4.5;
    const bytes = row.op === 'decode' ? (2 * 2 * 32 * 40 * bits) / 8 : 0;
    expect(row.gigabytesPerSecond ?? 0).toBeCloseTo(bytes / (row.medianMicroseconds * 1e3), 6);
  }
});
