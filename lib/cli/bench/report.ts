/** One table of results in four forms: Markdown and HTML to read, CSV and JSON (full numbers) to compute with. */
import { markdownTable, type Cell, type Column, type Row } from '../../toolkit/table';
import { html } from './html';

export type { Cell, Column, Row } from '../../toolkit/table';

export const FORMATS = ['md', 'csv', 'json', 'html'] as const;
export type Format = (typeof FORMATS)[number];

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

function markdown({ machine, notes, columns, rows }: Report): string {
  const about = Object.entries(machine).map(([key, value]) => `${key}: ${value}`);
  return [about.join(' · '), '', ...markdownTable({ columns, rows }), '', ...notes, ''].join('\n');
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
