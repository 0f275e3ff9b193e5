/** The three forms of a report. */
import { writeReport, type Report } from '../../../lib/cli/bench/report';

const report: Report = {
  bench: 'attention',
  machine: { backend: 'native', cpu: 'Some, CPU "X"' },
  notes: ['A note.'],
  columns: [
    { key: 'op', title: 'op' },
    { key: 'microseconds', title: 'µs', decimals: 1 },
    { key: 'samples' },
    { key: 'share', title: 'of roofline', style: 'percent' },
    { key: 'gigabytes', title: 'GB/s', decimals: 2 },
    { key: 'error', title: 'error', style: 'scientific' },
  ],
  rows: [
    {
      op: 'decode',
      microseconds: 1234.567,
      samples: 9,
      share: 0.876,
      gigabytes: 27.5,
      error: 3e-8,
    },
    { op: 'a|b', microseconds: 2, samples: 3, share: 1, gigabytes: null, error: 0 },
  ],
};

test('Markdown: an aligned table of titled columns', () => {
  expect(writeReport(report, 'md')).toBe(
    [
      'backend: native · cpu: Some, CPU "X"',
      '',
      '| op     |     µs | of roofline |  GB/s |  error |',
      '| ------ | -----: | ----------: | ----: | -----: |',
      '| decode | 1234.6 |        88 % | 27.50 | 3.0e-8 |',
      '| a\\|b   |    2.0 |       100 % |       | 0.0e+0 |',
      '',
      'A note.',
      '',
    ].join('\n'),
  );
});

test('a column that is empty in every row is left out of tables, not of CSV', () => {
  const rows = report.rows.map((row) => ({ ...row, gigabytes: null }));
  expect(writeReport({ ...report, rows }, 'md')).not.toContain('GB/s');
  expect(writeReport({ ...report, rows }, 'html')).not.toContain('GB/s');
  expect(writeReport({ ...report, rows }, 'csv')).toContain(',gigabytes,');
});

test('CSV: machine and full numbers in every row, quoted where needed', () => {
  expect(writeReport(report, 'csv')).toBe(
    [
      'backend,cpu,op,microseconds,samples,share,gigabytes,error',
      'native,"Some, CPU ""X""",decode,1234.567,9,0.876,27.5,3e-8',
      'native,"Some, CPU ""X""",a|b,2,3,1,,0',
      '',
    ].join('\n'),
  );
});

test('JSON: one document', () => {
  const text = writeReport(report, 'json');
  expect(text.endsWith('}\n')).toBe(true);
  expect(JSON.parse(text)).toEqual({
    bench: 'attention',
    machine: report.machine,
    results: report.rows,
  });
});

test('a report without rows is still one', () => {
  const empty = { ...report, rows: [] };
  expect(writeReport(empty, 'csv').trim().split('\n')).toHaveLength(1);
  expect(JSON.parse(writeReport(empty, 'json')).results).toEqual([]);
  expect(writeReport(empty, 'md')).toContain('| op ');
});

describe('HTML', () => {
  const plots = [
    {
      ...{ title: 'Share <of> roofline', value: 'share', panel: ['op'], label: ['microseconds'] },
      ...{ colour: 'op', reference: 1, whisker: ['error', 'share'] as [string, string] },
    },
    { title: 'Nothing to draw', value: 'none', panel: ['op'], label: ['op'], colour: 'op' },
  ];
  const page = writeReport({ ...report, plots }, 'html');

  test('one page that fetches nothing', () => {
    expect(page).toMatch(/^<!doctype html>\n/);
    expect(page).not.toMatch(/https?:|src=|href=|<script|@import|url\(/);
    expect(page).toContain('cpu: Some, CPU &quot;X&quot;');
  });

  test('the table, as Markdown has it', () => {
    expect(page).toContain('<tr><td>a|b</td><td class="number">2.0</td>');
    expect(page.match(/<tr>/g)).toHaveLength(1 + report.rows.length);
  });

  test('a chart for each panel, bars in proportion, the reference across', () => {
    expect(page).toContain('<h2>Share &lt;of&gt; roofline</h2>');
    expect(page).not.toContain('Nothing to draw');
    const bars = [...page.matchAll(/<rect x="230"[^>]* width="([\d.]+)"/g)].map((m) =>
      Number(m[1]),
    );
    expect(bars).toHaveLength(2);
    expect(bars[0] / bars[1]).toBeCloseTo(0.876, 3);
    expect(page.match(/stroke-dasharray/g)).toHaveLength(2);
    expect(page).toContain('>88 %</text>');
  });
});
