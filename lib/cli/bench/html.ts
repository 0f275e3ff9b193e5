/** A report as one HTML file that needs nothing else: its plots are inline SVG, its styles are in its head. */
import { formatCell, shownColumns, type Cell, type Plot, type Report, type Row } from './report';

const PALETTE = ['#3465a4', '#cc6600', '#2e8b57', '#a0303a', '#75507b', '#8a7000', '#4d8fac'];

/** Pixels. */
const LABEL_WIDTH = 230;
const BAR_WIDTH = 420;
const VALUE_WIDTH = 70;
const ROW_HEIGHT = 20;
const BAR_HEIGHT = 14;
const LEGEND_HEIGHT = 24;
const LEGEND_ENTRY_WIDTH = 90;

const STYLE = `body { font: 14px/1.45 system-ui, sans-serif; margin: 2rem auto; max-width: 76rem; padding: 0 1rem; }
table { border-collapse: collapse; font-size: 12px; }
th, td { padding: 2px 8px; border-bottom: 1px solid #ddd; text-align: left; }
td.number, th.number { text-align: right; font-variant-numeric: tabular-nums; }
svg { display: block; margin: 0 0 1.5rem; } text { font: 12px system-ui, sans-serif; }
h3 { font-size: 13px; margin: 0 0 2px; }`;

function escape(text: string): string {
  const entities: Record<string, string> = {
    '&': '&amp;',
    '<': '&lt;',
    '>': '&gt;',
    '"': '&quot;',
  };
  return text.replace(/[&<>"]/g, (character) => entities[character]);
}

function textOf(value: Cell | undefined): string {
  return value === null || value === undefined ? '' : String(value);
}

/** Rows by the joined values of the `keys` columns, in the order of their first row. */
function groupBy(rows: Row[], keys: string[]): Map<string, Row[]> {
  const groups = new Map<string, Row[]>();
  for (const row of rows) {
    const name = keys.map((key) => textOf(row[key])).join(' · ');
    groups.set(name, [...(groups.get(name) ?? []), row]);
  }
  return groups;
}

interface Scale {
  /** Pixels from the bars' start. */
  x: (value: number) => number;
  show: (value: Cell) => string;
  colour: (row: Row) => string;
}

function bar(row: Row, index: number, { label, value, whisker }: Plot, scale: Scale): string {
  const y = index * ROW_HEIGHT;
  const middle = y + ROW_HEIGHT / 2;
  const width = scale.x(row[value] as number);
  const name = label.map((key) => textOf(row[key])).join(' · ');
  const [low, high] = (whisker ?? []).map((key) => row[key]);
  const ends =
    typeof low === 'number' && typeof high === 'number' ? [scale.x(low), scale.x(high)] : null;
  const start = Math.max(width, ends?.[1] ?? 0) + LABEL_WIDTH + 5;
  return [
    `<text x="${LABEL_WIDTH - 6}" y="${middle + 4}" text-anchor="end">${escape(name)}</text>`,
    `<rect x="${LABEL_WIDTH}" y="${y + (ROW_HEIGHT - BAR_HEIGHT) / 2}" width="${width.toFixed(1)}" ` +
      `height="${BAR_HEIGHT}" fill="${scale.colour(row)}"/>`,
    ends === null
      ? ''
      : `<line x1="${(LABEL_WIDTH + ends[0]).toFixed(1)}" x2="${(LABEL_WIDTH + ends[1]).toFixed(1)}" ` +
        `y1="${middle}" y2="${middle}" stroke="#222"/>`,
    `<text x="${start.toFixed(1)}" y="${middle + 4}">${escape(scale.show(row[value]))}</text>`,
  ].join('');
}

function chart(title: string, rows: Row[], plot: Plot, scale: Scale): string {
  const height = rows.length * ROW_HEIGHT;
  const width = LABEL_WIDTH + BAR_WIDTH + VALUE_WIDTH;
  const bars = rows.map((row, index) => bar(row, index, plot, scale)).join('\n');
  const at = LABEL_WIDTH + scale.x(plot.reference ?? 0);
  const line = `<line x1="${at.toFixed(1)}" x2="${at.toFixed(1)}" y1="0" y2="${height}" stroke="#888" stroke-dasharray="4 3"/>`;
  return `<h3>${escape(title)}</h3>\n<svg width="${width}" height="${height}" role="img">\n${bars}\n${line}\n</svg>`;
}

function legend(names: string[]): string {
  const entries = names.map(
    (name, i) =>
      `<rect x="${i * LEGEND_ENTRY_WIDTH}" y="4" width="12" height="12" fill="${PALETTE[i % PALETTE.length]}"/>` +
      `<text x="${i * LEGEND_ENTRY_WIDTH + 17}" y="14">${escape(name)}</text>`,
  );
  const width = names.length * LEGEND_ENTRY_WIDTH;
  return `<svg width="${width}" height="${LEGEND_HEIGHT}">${entries.join('')}</svg>`;
}

function plotHtml(plot: Plot, { columns, rows }: Report): string {
  const drawn = rows.filter((row) => typeof row[plot.value] === 'number');
  if (drawn.length === 0) return '';
  const reach = [plot.value, ...(plot.whisker ?? [])];
  const values = drawn.flatMap((row) => reach.map((key) => row[key])).filter((v) => v !== null);
  const largest = Math.max(plot.reference ?? 0, ...(values as number[])) || 1;
  const colours = [...new Set(drawn.map((row) => textOf(row[plot.colour])))];
  const column = columns.find(({ key }) => key === plot.value)!;
  const scale: Scale = {
    x: (value) => (value / largest) * BAR_WIDTH,
    show: (value) => formatCell(value, column),
    colour: (row) => PALETTE[colours.indexOf(textOf(row[plot.colour])) % PALETTE.length],
  };
  const panels = [...groupBy(drawn, plot.panel)];
  const charts = panels.map(([title, group]) => chart(title, group, plot, scale));
  return [`<h2>${escape(plot.title)}</h2>`, legend(colours), ...charts].join('\n');
}

function table({ columns, rows }: Report): string {
  const shown = shownColumns({ columns, rows });
  const kind = shown.map(({ key }) =>
    rows.some((row) => typeof row[key] === 'number') ? ' class="number"' : '',
  );
  const line = (tag: string, cells: string[]) =>
    `<tr>${cells.map((cell, c) => `<${tag}${kind[c]}>${escape(cell)}</${tag}>`).join('')}</tr>`;
  return [
    '<table>',
    line(
      'th',
      shown.map((column) => column.title!),
    ),
    ...rows.map((row) =>
      line(
        'td',
        shown.map((c) => formatCell(row[c.key] ?? null, c)),
      ),
    ),
    '</table>',
  ].join('\n');
}

export function html(report: Report): string {
  const { bench, machine, notes, plots = [] } = report;
  const about = Object.entries(machine).map(([key, value]) => `${key}: ${textOf(value)}`);
  return `<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<title>gqa bench: ${escape(bench)}</title>
<style>
${STYLE}
</style>
</head>
<body>
<h1>gqa bench: ${escape(bench)}</h1>
<p>${escape(about.join(' · '))}</p>
${plots.map((plot) => plotHtml(plot, report)).join('\n')}
<h2>Table</h2>
${table(report)}
<p>${escape(notes.join(' '))}</p>
</body>
</html>
`;
}
