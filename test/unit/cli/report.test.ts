/** The three forms of a report. */
import { writeReport, type Report } from '../../../lib/cli/bench/report';
import { all, parsePage, requireSelfContained, textsOf } from '../../support/html-page';

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

  const document = parsePage(page);

  test('one page that fetches nothing', () => {
    requireSelfContained(page);
    expect(textsOf(document, 'h1')).toEqual(['gqa bench: attention']);
    expect(textsOf(document, 'p')[0]).toContain('cpu: Some, CPU "X"');
  });

  test('the table, as Markdown has it', () => {
    const rows = all(all(document, 'table').at(-1)!, 'tr');
    expect(rows).toHaveLength(1 + report.rows.length);
    expect(textsOf(rows[2], 'td')).toEqual(['a|b', '2.0', '100 %', '', '0.0e+0']);
  });

  test('a chart for each panel, bars in proportion, the reference across', () => {
    expect(textsOf(document, 'h2')).toEqual(['Share <of> roofline', 'Table']);
    expect(textsOf(document, 'figcaption')).toEqual(['decode', 'a|b']);
    const bars = all(document, 'rect').filter((rect) => all(rect, 'title').length > 0);
    const widths = bars.map((bar) => Number(bar.getAttribute('width')));
    expect(widths[0] / widths[1]).toBeCloseTo(0.876, 3);
    expect(bars.map((bar) => bar.getAttribute('class'))).toEqual(['s0', 's1']);
    expect(page.match(/class="axis reference"/g)).toHaveLength(2);
    expect(textsOf(document, 'text')).toContain('88 %');
  });
});
