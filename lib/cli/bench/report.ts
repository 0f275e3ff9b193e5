/** One table of results in four forms: Markdown and HTML to read, CSV and JSON (full numbers) to compute with. */
import { html } from './html';

export const FORMATS = ['md', 'csv', 'json', 'html'] as const;
export type Format = (typeof FORMATS)[number];
export type Cell = string | number | null;
export type Row = Readonly<Record<string, Cell>>;

export interface Column {
  key: string;
  /** Heading in tables; a column without one is left to CSV and JSON. */
  title?: string;
  /** Decimals in tables. */
  decimals?: number;
  /** How tables show a number where plain decimals do not serve. */
  style?: 'percent' | 'scientific';
}

/** Horizontal bars of one column, a chart for each combination of the `panel` columns. */
export interface Plot {
  title: string;
  /** Column of the bars' lengths. */
  value: string;
  /** Columns of the ends of a bar's whisker. */
  whisker?: [low: string, high: string];
  panel: string[];
  /** Columns that name a bar. */
  label: string[];
  /** Column that gives a bar its colour. */
  colour: string;
  /** A line across the bars, such as a share of 1. */
  reference?: number;
}

export interface Report {
  bench: string;
  /** Where it was measured; repeated in every CSV row. */
  machine: Row;
  /** Lines below the table that say how to read it. */
  notes: string[];
  columns: Column[];
  rows: Row[];
  plots?: Plot[];
}

/** A cell as people read it. */
export function formatCell(value: Cell, { decimals, style }: Column): string {
  if (value === null) return '';
  if (typeof value === 'string') return value;
  if (style === 'percent') return `${(value * 100).toFixed(decimals ?? 0)} %`;
  if (style === 'scientific') return value.toExponential(decimals ?? 1);
  return decimals === undefined ? String(value) : value.toFixed(decimals);
}

/** Those with a heading; one that is empty in every row says nothing, unless all of them are. */
export function shownColumns({ columns, rows }: Pick<Report, 'columns' | 'rows'>): Column[] {
  const filled = ({ key }: Column) => rows.some((row) => (row[key] ?? null) !== null);
  return columns.filter(
    (column) => column.title !== undefined && (rows.length === 0 || filled(column)),
  );
}

function markdown({ machine, notes, columns, rows }: Report): string {
  const shown = shownColumns({ columns, rows });
  const numeric = shown.map(({ key }) => rows.some((row) => typeof row[key] === 'number'));
  const table = [
    shown.map((column) => column.title!),
    ...rows.map((row) =>
      shown.map((column) => formatCell(row[column.key] ?? null, column).replaceAll('|', '\\|')),
    ),
  ];
  const widths = shown.map((_, c) => Math.max(3, ...table.map((cells) => cells[c].length)));
  const line = (cells: string[]) => {
    const padded = cells.map((cell, c) =>
      numeric[c] ? cell.padStart(widths[c]) : cell.padEnd(widths[c]),
    );
    return `| ${padded.join(' | ')} |`;
  };
  const rule = widths.map((width, c) =>
    numeric[c] ? `${'-'.repeat(width - 1)}:` : '-'.repeat(width),
  );
  const about = Object.entries(machine).map(([key, value]) => `${key}: ${value}`);
  const body = [line(table[0]), line(rule), ...table.slice(1).map(line)];
  return [about.join(' · '), '', ...body, '', ...notes, ''].join('\n');
}

function csvCell(value: Cell): string {
  const text = value === null ? '' : String(value);
  return /[",\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
}

function csv({ machine, columns, rows }: Report): string {
  const keys = [...Object.keys(machine), ...columns.map(({ key }) => key)];
  const lines = rows.map((row) => keys.map((key) => csvCell(row[key] ?? machine[key] ?? null)));
  return [keys, ...lines].map((cells) => `${cells.join(',')}\n`).join('');
}

function json({ bench, machine, columns, rows }: Report): string {
  const keys = columns.map(({ key }) => key);
  const results = rows.map((row) => Object.fromEntries(keys.map((key) => [key, row[key] ?? null])));
  return `${JSON.stringify({ bench, machine, results }, null, 2)}\n`;
}

export function writeReport(report: Report, format: Format): string {
  return { md: markdown, csv, json, html }[format](report);
}
