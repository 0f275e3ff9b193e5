/** Pages and charts: well-formed, complete, escaped, and whole for data that is empty, single or not finite. */
import { barChart, heatmap, lineChart, markup, page, table } from '../../../lib/toolkit/html';
import { scaleFor } from '../../../lib/toolkit/html/scale';
import { all, parsePage, requireSelfContained, textsOf } from '../../support/html-page';

const HOSTILE = `<b>&"'</b> ]]> \u0000\u0008\ud800 <!-- é`;

const LINE = {
  title: 'Loss',
  x: { label: 'step', integer: true },
  y: { label: 'loss', unit: 'nats' },
  series: [
    { name: 'training', points: [0, 1, 2, 3].map((x) => [x, 3 - x / 2] as const) },
    { name: 'held back', points: [[0, 3.1] as const, [3, 2.25] as const] },
  ],
};

const BARS = {
  title: 'Damage',
  value: { label: 'cross-entropy' },
  bars: [
    { label: '3 heads', series: 'mean', value: 3.5 },
    { label: '3 heads', series: 'aligned', value: 2.75 },
    { label: '1 head', series: 'mean', value: 7, whisker: [6.5, 7.5] as const },
  ],
};

const MAP = {
  title: 'Entropy',
  rows: { label: 'layer' },
  columns: { label: 'head' },
  value: { label: 'H / ln n' },
  values: [
    [0, 0.25, NaN],
    [0.5, 1, 0.75],
  ],
};

/** The parsed page around one piece of content; it is well-formed and fetches nothing. */
function shown(content: Parameters<typeof page>[1][number]['content']) {
  const html = page('A page', [{ content }]);
  requireSelfContained(html);
  return parsePage(html);
}

function attributes(document: ReturnType<typeof parsePage>, name: string, key: string): string[] {
  return all(document, name).map((element) => element.getAttribute(key) ?? '');
}

/** Cells of the n-th table, row by row. */
function cellsOf(document: ReturnType<typeof parsePage>, index = 0): string[][] {
  return all(all(document, 'table')[index], 'tr').map((row) =>
    [...textsOf(row, 'th'), ...textsOf(row, 'td')].map((text) => text.trim()),
  );
}

describe('page', () => {
  const html = page(
    'Title',
    [{ heading: 'First', text: ['One.', 'Two.'], content: markup`<p>${'a < b'}</p>`, notes: 'N.' }],
    { about: 'About it' },
  );

  test('a document with a title, headings in order, and both themes', () => {
    expect(html).toMatch(/^<!DOCTYPE html>\n<html lang="en">/);
    const document = parsePage(html);
    expect([...textsOf(document, 'title'), ...textsOf(document, 'h1')]).toEqual(['Title', 'Title']);
    expect(textsOf(document, 'h2')).toEqual(['First']);
    expect(textsOf(document, 'p')).toEqual(['About it', 'One.', 'Two.', 'a < b', 'N.']);
    expect(html).toContain('prefers-color-scheme: dark');
    requireSelfContained(html);
  });

  test('text comes back as it was, but for what no document may hold', () => {
    const document = parsePage(page(HOSTILE, [{ heading: HOSTILE, text: HOSTILE }]));
    const harmless = `<b>&"'</b> ]]> \ufffd\ufffd\ufffd <!-- é`;
    for (const name of ['title', 'h1', 'h2', 'p']) {
      expect(textsOf(document, name)).toEqual([harmless]);
    }
    expect(all(document, 'b')).toEqual([]);
  });

  test('markup escapes everything but markup', () => {
    const part = markup`<i>${1}</i>`;
    const whole = markup`<p title="${`"'`}">${['<', part, [part, null, false, undefined]]}</p>`;
    expect(whole.html).toBe('<p title="&quot;&#39;">&lt;<i>1</i><i>1</i></p>');
  });
});

test('table: formatted cells, numbers at the right, empty columns left out', () => {
  const document = shown(
    table(
      {
        columns: [
          { key: 'name', title: 'name' },
          { key: 'bytes', title: 'cache', style: 'bytes' },
          { key: 'count', title: 'parameters', style: 'grouped' },
          { key: 'none', title: 'none' },
          { key: 'hidden' },
        ],
        rows: [
          { name: '<x>', bytes: 1_342_177_280, count: 6_738_415_616, none: null, hidden: 1 },
          { name: 'y', bytes: null, count: 0 },
        ],
      },
      'What & why',
    ),
  );
  expect(cellsOf(document)).toEqual([
    ['name', 'cache', 'parameters'],
    ['<x>', '1.25 GiB', '6,738,415,616'],
    ['y', '', '0'],
  ]);
  expect(textsOf(document, 'caption')).toEqual(['What & why']);
  expect(attributes(document, 'td', 'class')).toEqual([
    '',
    'number',
    'number',
    '',
    'number',
    'number',
  ]);
});

describe.each([
  ['line chart', lineChart(LINE)],
  ['bar chart', barChart(BARS)],
  ['heatmap', heatmap(MAP)],
])('%s', (_, content) => {
  const document = shown(content);

  test('has a name, a description, and its values as a table', () => {
    const [svg] = all(document, 'svg');
    expect(svg.getAttribute('role')).toBe('img');
    const [title] = textsOf(svg, 'title');
    expect(svg.getAttribute('aria-label')).toBe(`${title}. ${textsOf(svg, 'desc')[0]}`);
    expect(textsOf(document, 'figcaption')).toEqual([title]);
    expect(cellsOf(document).length).toBeGreaterThan(2);
  });

  test('everything drawn is within the picture', () => {
    const [svg] = all(document, 'svg');
    const [, , width, height] = svg.getAttribute('viewBox')!.split(' ').map(Number);
    for (const rect of all(svg, 'rect')) {
      const [x, y, w, h] = ['x', 'y', 'width', 'height'].map((key) =>
        Number(rect.getAttribute(key)),
      );
      expect(Math.min(x, y, w, h)).toBeGreaterThanOrEqual(0);
      expect(x + w).toBeLessThanOrEqual(width + 0.5);
      expect(y + h).toBeLessThanOrEqual(height);
    }
    expect(content.html).not.toMatch(/NaN|Infinity|undefined/);
  });
});

describe('line chart', () => {
  test('points in proportion, a dot with its value on each, a table row per x', () => {
    const document = shown(lineChart(LINE));
    const circles = all(document, 'circle');
    expect(circles.map((circle) => textsOf(circle, 'title')[0])).toEqual([
      'training: 0, 3',
      'training: 1, 2.5',
      'training: 2, 2',
      'training: 3, 1.5',
      'held back: 0, 3.1',
      'held back: 3, 2.25',
    ]);
    const [a, b, c, d] = circles.map((circle) => Number(circle.getAttribute('cx')));
    expect(b - a).toBeCloseTo(c - b, 0);
    expect(c - b).toBeCloseTo(d - c, 0);
    const ys = circles.slice(0, 3).map((circle) => Number(circle.getAttribute('cy')));
    expect(ys[1] - ys[0]).toBeCloseTo(ys[2] - ys[1], 0);
    expect(ys[1]).toBeGreaterThan(ys[0]);
    expect(cellsOf(document)).toEqual([
      ['step', 'training, loss (nats)', 'held back, loss (nats)'],
      ['0', '3', '3.1'],
      ['1', '2.5', ''],
      ['2', '2', ''],
      ['3', '1.5', '2.25'],
    ]);
    expect(textsOf(document, 'text')).toEqual(expect.arrayContaining(['loss (nats)', 'step']));
  });

  test('a value that is not finite leaves a gap', () => {
    const points = [1, 2, NaN, 4, Infinity, 6].map((y, x) => [x, y] as const);
    const document = shown(lineChart({ ...LINE, series: [{ name: 'a', points }] }));
    const [path] = attributes(document, 'path', 'd').filter((d) => d.includes('L'));
    expect(path.match(/M/g)).toHaveLength(3);
    expect(path.match(/L/g)).toHaveLength(1);
    expect(cellsOf(document)[3]).toEqual(['2', 'NaN']);
  });

  test.each([
    ['no lines', []],
    ['an empty line', [{ name: 'a', points: [] }]],
    ['no finite value', [{ name: 'a', points: [[0, NaN] as const] }]],
  ])('%s: says so', (_, series) => {
    const document = shown(lineChart({ ...LINE, series }));
    expect(all(document, 'svg')).toEqual([]);
    expect(textsOf(document, 'p')).toEqual(['Nothing to draw: there are no values.']);
  });

  test.each([0, 5, -2, 1e-9, 1e12])('one point of %p stands inside the picture', (y) => {
    const series = [{ name: 'a', points: [[7, y] as const] }];
    const [circle] = all(shown(lineChart({ ...LINE, series })), 'circle');
    expect(Number(circle.getAttribute('cx'))).toBeGreaterThan(50);
    expect(Number(circle.getAttribute('cy'))).toBeGreaterThan(50);
    expect(Number(circle.getAttribute('cy'))).toBeLessThan(250);
  });

  test('a long curve is thinned, its spikes stay, and so does the table', () => {
    const points = Array.from({ length: 50_000 }, (_, x) => [x, x === 31_415 ? 99 : 1] as const);
    const html = lineChart({ ...LINE, series: [{ name: 'a', points }] }).html;
    expect(html.length).toBeLessThan(60_000);
    const spikes = [...html.matchAll(/L([\d.]+) ([\d.]+)/g)].map((match) => Number(match[2]));
    expect(Math.max(...spikes) - Math.min(...spikes)).toBeGreaterThan(250);
    const rows = cellsOf(shown(lineChart({ ...LINE, series: [{ name: 'a', points }] })));
    expect([rows.length, rows[1][0], rows.at(-1)![0]]).toEqual([65, '0', '49,999']);
  });

  test('logarithmic axes leave out what they cannot show', () => {
    const points = [0, 1, 10, 100].map((y, x) => [2 ** x, y] as const);
    const chart = {
      ...{ title: 'Log', x: { label: 'x', scale: 'log2' as const } },
      ...{ y: { label: 'y', scale: 'log' as const }, series: [{ name: 'a', points }] },
    };
    const circles = all(shown(lineChart(chart)), 'circle');
    const ys = circles.map((circle) => Number(circle.getAttribute('cy')));
    expect(ys).toHaveLength(3);
    expect(ys[0] - ys[1]).toBeCloseTo(ys[1] - ys[2], 0);
  });
});

describe('bar chart', () => {
  test('bars in proportion from zero, values beside them, one label a group', () => {
    const document = shown(barChart(BARS));
    const bars = all(document, 'rect').filter((rect) => rect.getAttribute('height') === '15');
    const widths = bars.map((bar) => Number(bar.getAttribute('width')));
    expect(widths[0] / widths[2]).toBeCloseTo(0.5, 2);
    expect(new Set(bars.map((bar) => bar.getAttribute('x'))).size).toBe(1);
    expect(bars.map((bar) => bar.getAttribute('class'))).toEqual(['s0', 's1', 's0']);
    const texts = textsOf(document, 'text');
    expect(texts.filter((text) => text === '3 heads')).toHaveLength(1);
    expect(texts).toEqual(expect.arrayContaining(['3.5', '2.75', 'mean', 'aligned']));
    expect(cellsOf(document)[3]).toEqual(['1 head', 'mean', '7', '6.5', '7.5']);
  });

  test('negative and missing values', () => {
    const bars = [
      { label: 'a', value: -1 },
      { label: 'b', value: 3 },
      { label: 'c', value: NaN },
    ];
    const document = shown(barChart({ ...BARS, bars, reference: 1 }));
    const [down, up] = all(document, 'rect').map((rect) => ({
      x: Number(rect.getAttribute('x')),
      width: Number(rect.getAttribute('width')),
    }));
    expect(up.width / down.width).toBeCloseTo(3, 1);
    expect(down.x + down.width).toBeCloseTo(up.x, 0);
    expect(textsOf(document, 'text')).toContain('NaN');
    expect(attributes(document, 'path', 'class')).toContain('axis reference');
  });

  test('a label without room is cut, and told whole', () => {
    const label = 'long '.repeat(30);
    const document = shown(barChart({ ...BARS, bars: [{ label, value: 1 }] }));
    const cut = all(document, 'text').find((text) => text.textContent?.includes('…'))!;
    expect(textsOf(cut, 'title')).toEqual([label]);
  });

  test('nothing to draw', () => {
    expect(all(shown(barChart({ ...BARS, bars: [] })), 'svg')).toEqual([]);
    expect(all(shown(barChart({ ...BARS, bars: [{ label: 'a', value: 0 }] })), 'svg')).toHaveLength(
      1,
    );
  });
});

describe('heatmap', () => {
  const cells = (document: ReturnType<typeof parsePage>) =>
    all(document, 'rect').filter((rect) => textsOf(rect, 'title').length > 0);

  test('a cell per value that tells it, colours from end to end, a legend', () => {
    const document = shown(heatmap(MAP));
    expect(cells(document).map((cell) => textsOf(cell, 'title')[0])).toEqual([
      'layer 0, head 0: 0',
      'layer 0, head 1: 0.25',
      'layer 0, head 2: no value',
      'layer 1, head 0: 0.50',
      'layer 1, head 1: 1',
      'layer 1, head 2: 0.75',
    ]);
    const fills = cells(document).map((cell) => cell.getAttribute('fill'));
    expect([fills[0], fills[4]]).toEqual(['#440154', '#fde725']);
    expect(fills[2]).toBeNull();
    expect(textsOf(document, 'text')).toEqual(
      expect.arrayContaining(['H / ln n', 'layer', 'head']),
    );
    expect(cellsOf(document)[1]).toEqual(['0', '0', '0.25', 'no value']);
  });

  test('a given range clamps, a diverging one has its own middle', () => {
    const map = { ...MAP, range: [-1, 1] as const, diverging: true, values: [[-5, 0, 5]] };
    const fills = cells(shown(heatmap(map))).map((cell) => cell.getAttribute('fill'));
    expect(fills).toEqual(['#05447a', '#f5f5f5', '#8c3c05']);
  });

  test('rows of different length, one value, none', () => {
    expect(cells(shown(heatmap({ ...MAP, values: [[1], [1, 2, 3], []] })))).toHaveLength(4);
    expect(cells(shown(heatmap({ ...MAP, values: [[3]] })))).toHaveLength(1);
    expect(all(shown(heatmap({ ...MAP, values: [] })), 'svg')).toEqual([]);
    expect(all(shown(heatmap({ ...MAP, values: [[NaN]] })), 'svg')).toEqual([]);
  });

  test('80 layers of 64 heads still fit, with as many names as have room', () => {
    const values = Array.from({ length: 80 }, (_, r) =>
      Array.from({ length: 64 }, (_, c) => r * c),
    );
    const document = shown(heatmap({ ...MAP, values }));
    const [width] = attributes(document, 'svg', 'width').map(Number);
    expect(width).toBeLessThanOrEqual(760);
    expect(cells(document)).toHaveLength(80 * 64);
    expect(textsOf(document, 'text').length).toBeLessThan(90);
  });

  test('names are escaped', () => {
    const rows = { label: HOSTILE, names: ['<i>', '"'] };
    const document = shown(heatmap({ ...MAP, rows, title: HOSTILE }));
    expect(all(document, 'i')).toEqual([]);
    expect(cellsOf(document)[1][0]).toBe('<i>');
  });
});

describe('axes', () => {
  const labels = (values: number[], axis = {}) => {
    const scale = scaleFor(values, { label: 'x', ...axis });
    return scale.ticks.map((tick) => scale.format(tick));
  };

  test.each([
    [[0, 1], {}, ['0.0', '0.2', '0.4', '0.6', '0.8', '1.0']],
    [[2.13, 2.31], {}, ['2.10', '2.15', '2.20', '2.25', '2.30', '2.35']],
    [[0, 5], { integer: true }, ['0', '1', '2', '3', '4', '5']],
    [[0, 2], { integer: true }, ['0', '1', '2']],
    [[0, 445_000], {}, ['0', '100k', '200k', '300k', '400k', '500k']],
    [[-1, 1], {}, ['-1.0', '-0.5', '0.0', '0.5', '1.0']],
    [[0, 2e-5], {}, ['0', '5e-6', '1e-5', '1.5e-5', '2e-5']],
    [[1, 1000], { scale: 'log' }, ['1', '10', '100', '1,000']],
    [
      [0.01, 4e6],
      { scale: 'log' },
      ['0.01', '0.1', '1', '10', '100', '1,000', '10,000', '100k', '1M', '10M'],
    ],
    [[512, 4096], { scale: 'log2' }, ['512', '1,024', '2,048', '4,096']],
    [[], {}, ['0.0', '0.2', '0.4', '0.6', '0.8', '1.0']],
  ])('%j %j', (values, axis, expected) => {
    expect(labels(values, axis)).toEqual(expected);
  });

  test('every axis covers its values, in order', () => {
    for (let seed = 1; seed < 400; seed++) {
      const low = Math.sin(seed) * 10 ** ((seed % 17) - 8);
      const high = low + Math.abs(Math.cos(seed * 7)) * 10 ** ((seed % 13) - 6);
      const linear = scaleFor([low, high], { label: 'x' });
      const log = scaleFor([Math.abs(low), Math.abs(low) + (high - low)], {
        label: 'x',
        scale: 'log',
      });
      for (const [scale, a, b] of [
        [linear, low, high],
        [log, Math.abs(low), Math.abs(low) + (high - low)],
      ] as const) {
        expect(scale.at(a)).toBeGreaterThanOrEqual(-1e-6);
        expect(scale.at(b)).toBeLessThanOrEqual(1 + 1e-6);
        expect(scale.at(a)! <= scale.at(b)!).toBe(true);
      }
      expect(linear.ticks.length).toBeGreaterThan(1);
      expect(linear.ticks.length).toBeLessThan(9);
    }
  });
});
