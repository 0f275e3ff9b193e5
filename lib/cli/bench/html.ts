/** A report as one HTML page that needs nothing else: its plots, its table, its notes. */
import { barChart, page, table, type Bar, type Section } from '../../toolkit/html';
import { formatCell } from '../../toolkit/table';
import type { Cell, Plot, Report, Row } from './report';

function textOf(value: Cell | undefined): string {
  return value === null || value === undefined ? '' : String(value);
}

function joined(row: Row, keys: string[]): string {
  return keys.map((key) => textOf(row[key])).join(' · ');
}

/** Rows by the joined values of the `keys` columns, in the order of their first row. */
function groupBy(rows: Row[], keys: string[]): Map<string, Row[]> {
  const groups = new Map<string, Row[]>();
  for (const row of rows) {
    const name = joined(row, keys);
    groups.set(name, [...(groups.get(name) ?? []), row]);
  }
  return groups;
}

function barOf(row: Row, { label, value, whisker, colour }: Plot): Bar {
  const [low, high] = (whisker ?? []).map((key) => row[key]);
  const bar = { label: joined(row, label), series: textOf(row[colour]), value: Number(row[value]) };
  const ends = typeof low === 'number' && typeof high === 'number';
  return ends ? { ...bar, whisker: [low, high] } : bar;
}

/** A chart for each panel, all to one scale and in the same colours. */
function plotSection(plot: Plot, { columns, rows }: Report): Section[] {
  const drawn = rows.filter((row) => typeof row[plot.value] === 'number');
  if (drawn.length === 0) return [];
  const column = columns.find(({ key }) => key === plot.value)!;
  const reach = [plot.value, ...(plot.whisker ?? [])];
  const values = drawn.flatMap((row) => reach.map((key) => Number(row[key] ?? 0)));
  const value = {
    label: column.title ?? plot.title,
    max: values.reduce((a, b) => Math.max(a, b), plot.reference ?? 0) || 1,
    format: (number: number) => formatCell(number, column),
  };
  const series = [...new Set(drawn.map((row) => textOf(row[plot.colour])))];
  const content = [...groupBy(drawn, plot.panel)].map(([title, group]) => {
    const bars = group.map((row) => barOf(row, plot));
    return barChart({ title, value, bars, series, reference: plot.reference });
  });
  return [{ heading: plot.title, content }];
}

export function html(report: Report): string {
  const { bench, machine, notes, plots = [] } = report;
  const about = Object.entries(machine).map(([key, value]) => `${key}: ${textOf(value)}`);
  return page(
    `gqa bench: ${bench}`,
    [
      ...plots.flatMap((plot) => plotSection(plot, report)),
      { heading: 'Table', content: table(report), notes: notes.join(' ') },
    ],
    { about: about.join(' · ') },
  );
}
