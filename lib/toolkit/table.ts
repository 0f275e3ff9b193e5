/** A table of results: columns that say how their cells are read, rows of full numbers. */
import { formatBytes, grouped } from './numbers';

export type Cell = string | number | null;
export type Row = Readonly<Record<string, Cell>>;

export interface Column {
  key: string;
  /** Heading in tables; a column without one is left to CSV and JSON. */
  title?: string;
  /** Decimals in tables. */
  decimals?: number;
  /** How tables show a number where plain decimals do not serve; grouped: 1,234,567. */
  style?: 'percent' | 'scientific' | 'bytes' | 'grouped';
}

export interface TableData {
  columns: readonly Column[];
  rows: readonly Row[];
}

/** A cell as people read it. */
export function formatCell(value: Cell, { decimals, style }: Column): string {
  if (value === null) return '';
  if (typeof value === 'string') return value;
  switch (style) {
    case 'percent':
      return `${(value * 100).toFixed(decimals ?? 0)} %`;
    case 'scientific':
      return value.toExponential(decimals ?? 1);
    case 'bytes':
      return formatBytes(value);
    case 'grouped':
      return grouped(value, decimals);
    default:
      return decimals === undefined ? String(value) : value.toFixed(decimals);
  }
}

/** Those with a heading; one that is empty in every row says nothing, unless all of them are. */
export function shownColumns({ columns, rows }: TableData): Column[] {
  const filled = ({ key }: Column) => rows.some((row) => (row[key] ?? null) !== null);
  return columns.filter(
    (column) => column.title !== undefined && (rows.length === 0 || filled(column)),
  );
}

/** Whether a column's cells stand at its right edge. */
export function isNumeric({ rows }: TableData, { key }: Column): boolean {
  return rows.some((row) => typeof row[key] === 'number');
}

/** Lines of a Markdown table, aligned for a terminal too. */
export function markdownTable(data: TableData): string[] {
  const shown = shownColumns(data);
  const numeric = shown.map((column) => isNumeric(data, column));
  const cells = [
    shown.map((column) => column.title!),
    ...data.rows.map((row) =>
      shown.map((column) => formatCell(row[column.key] ?? null, column).replaceAll('|', '\\|')),
    ),
  ];
  const widths = shown.map((_, c) => Math.max(3, ...cells.map((line) => line[c].length)));
  const line = (texts: string[]) => {
    const padded = texts.map((text, c) =>
      numeric[c] ? text.padStart(widths[c]) : text.padEnd(widths[c]),
    );
    return `| ${padded.join(' | ')} |`;
  };
  const rule = widths.map((width, c) =>
    numeric[c] ? `${'-'.repeat(width - 1)}:` : '-'.repeat(width),
  );
  return [line(cells[0]), line(rule), ...cells.slice(1).map(line)];
}
