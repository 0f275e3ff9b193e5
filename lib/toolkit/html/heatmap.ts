/** A field of coloured cells: layers x heads. Each cell tells its value; the legend tells the range. */
import { formatValue } from '../numbers';
import { shade } from './colours';
import { emptyFigure, figure, fitted, px, textWidth, type FigureData } from './figure';
import { markup, type Content, type Markup } from './markup';

export interface HeatmapSide {
  /** What its lines are, such as 'layer' or 'head'. */
  label: string;
  /** Names of the lines; default their numbers from 0. */
  names?: readonly string[];
}

export interface Heatmap {
  title: string;
  rows: HeatmapSide;
  columns: HeatmapSide;
  /** What the colour tells. */
  value: { label: string; unit?: string; format?: (value: number) => string };
  /** Row by row; rows may be of different length. What is not finite is drawn as an empty cell. */
  values: readonly (readonly number[])[];
  /** Values of the first and the last colour; default the least and the greatest. */
  range?: readonly [number, number];
  /** Two colours that part in the middle of the range. */
  diverging?: boolean;
}

/** Pixels. */
const MAX_WIDTH = 720;
const CELL_WIDTH = { least: 5, most: 46 };
const CELL_HEIGHT = { least: 9, most: 20 };
/** A cell as wide as its longest text and this shows its text. */
const TEXT_MARGIN = 4;
const TOP = 34;
const BOTTOM = 56;
const LEGEND_WIDTH = 220;
const LEGEND_STEPS = 44;
const LABEL_SPACE = 16;

interface Frame {
  left: number;
  width: number;
  height: number;
  low: number;
  high: number;
  show: (value: number) => string;
  rowNames: readonly string[];
  columnNames: readonly string[];
}

function namesOf({ names }: HeatmapSide, count: number): string[] {
  return Array.from({ length: count }, (_, i) => names?.[i] ?? String(i));
}

function drawCell(value: number, r: number, c: number, map: Heatmap, frame: Frame): Markup {
  const { left, width, height, low, high, show, rowNames, columnNames } = frame;
  const [x, y] = [px(left + c * width), px(TOP + r * height)];
  const size = markup`x="${x}" y="${y}" width="${px(width)}" height="${px(height)}"`;
  const text = Number.isFinite(value) ? show(value) : 'no value';
  const name = `${map.rows.label} ${rowNames[r]}, ${map.columns.label} ${columnNames[c]}: ${text}`;
  if (!Number.isFinite(value)) {
    return markup`<rect class="none" stroke-dasharray="2 2" ${size}><title>${name}</title></rect>`;
  }
  const { fill, ink } = shade(high > low ? (value - low) / (high - low) : 0.5, !!map.diverging);
  const shown =
    width >= textWidth(text) + TEXT_MARGIN && height >= 14
      ? markup`<text x="${px(left + (c + 0.5) * width)}" y="${px(TOP + (r + 0.5) * height + 4)}" text-anchor="middle" style="fill: ${ink}; pointer-events: none">${text}</text>`
      : null;
  return markup`<rect fill="${fill}" ${size}><title>${name}</title></rect>${shown}`;
}

/** As many names as have room. */
function drawNames(map: Heatmap, frame: Frame): Content {
  const { left, width, height, rowNames, columnNames } = frame;
  const widest = columnNames.map(textWidth).reduce((a, b) => Math.max(a, b), 0);
  const everyColumn = Math.max(1, Math.ceil((widest + 6) / width));
  const everyRow = Math.max(1, Math.ceil(LABEL_SPACE / height));
  const across = columnNames.map((name, c) =>
    c % everyColumn === 0
      ? markup`<text x="${px(left + (c + 0.5) * width)}" y="${TOP - 6}" text-anchor="middle">${name}</text>`
      : null,
  );
  const down = rowNames.map((name, r) =>
    r % everyRow === 0
      ? markup`<text x="${left - 6}" y="${px(TOP + (r + 0.5) * height + 4)}" text-anchor="end">${fitted(name, left - 24)}</text>`
      : null,
  );
  const middle = px(TOP + (rowNames.length * height) / 2);
  return [
    markup`<text class="soft" x="${px(left + (columnNames.length * width) / 2)}" y="12" text-anchor="middle">${map.columns.label}</text>`,
    markup`<text class="soft" x="12" y="${middle}" transform="rotate(-90 12 ${middle})" text-anchor="middle">${map.rows.label}</text>`,
    ...[across, down],
  ];
}

function drawLegend({ value, diverging }: Heatmap, { left, low, high, show }: Frame, y: number) {
  const step = LEGEND_WIDTH / LEGEND_STEPS;
  const bar = Array.from(
    { length: LEGEND_STEPS },
    (_, i) =>
      markup`<rect x="${px(left + i * step)}" y="${px(y)}" width="${px(step + 0.3)}" height="10" fill="${shade((i + 0.5) / LEGEND_STEPS, !!diverging).fill}"/>`,
  );
  const labels = [low, (low + high) / 2, high].map((end, i) => {
    const at = px(left + (i * LEGEND_WIDTH) / 2);
    const anchor = ['start', 'middle', 'end'][i];
    return markup`<text x="${at}" y="${px(y + 24)}" text-anchor="${anchor}">${show(end)}</text>`;
  });
  const unit = value.unit === undefined ? '' : ` (${value.unit})`;
  return markup`${bar}${labels}<text class="soft" x="${px(left + LEGEND_WIDTH + 14)}" y="${px(y + 9)}">${`${value.label}${unit}`}</text>`;
}

function dataOf({ rows, columns, values }: Heatmap, frame: Frame): FigureData {
  const heads = frame.columnNames.map((name, c) => ({
    key: String(c),
    title: `${columns.label} ${name}`,
  }));
  const show = (value: number): string => (Number.isFinite(value) ? frame.show(value) : 'no value');
  const row = (index: number) => ({
    name: frame.rowNames[index],
    ...Object.fromEntries(values[index].map((value, c) => [String(c), show(value)])),
  });
  return { columns: [{ key: 'name', title: rows.label }, ...heads], count: values.length, row };
}

function frameFor(map: Heatmap, finite: readonly number[]): Frame {
  const count = map.values.reduce((most, line) => Math.max(most, line.length), 0);
  const rowNames = namesOf(map.rows, map.values.length);
  const nameWidth = rowNames.map(textWidth).reduce((a, b) => Math.max(a, b), 0);
  const left = Math.ceil(Math.min(160, nameWidth) + 30);
  const within = (size: number, { least, most }: { least: number; most: number }): number =>
    Math.min(most, Math.max(least, Math.floor(size)));
  const low = finite.reduce((a, b) => Math.min(a, b), Infinity);
  const high = finite.reduce((a, b) => Math.max(a, b), -Infinity);
  const [from, to] = map.range ?? [low, high];
  return {
    left,
    width: within((MAX_WIDTH - left) / count, CELL_WIDTH),
    height: within(640 / map.values.length, CELL_HEIGHT),
    ...{ low: from, high: to, rowNames },
    columnNames: namesOf(map.columns, count),
    // As few digits as tell a hundredth of the range apart.
    show: map.value.format ?? ((value) => cellText(value, to - from)),
  };
}

function cellText(value: number, range: number): string {
  if (Number.isInteger(value) && Math.abs(value) < 1e6) return String(value);
  if (!(range > 1e-4 && range < 1e6)) return formatValue(value);
  return value.toFixed(Math.max(0, 2 - Math.floor(Math.log10(range) + 1e-9)));
}

export function heatmap(map: Heatmap): Markup {
  const finite = map.values.flatMap((line) => line.filter(Number.isFinite));
  if (finite.length === 0) return emptyFigure(map.title);
  const frame = frameFor(map, finite);
  const bottom = TOP + map.values.length * frame.height;
  const width = frame.left + frame.columnNames.length * frame.width + 20;
  const { label } = map.value;
  const keyWidth = frame.left + LEGEND_WIDTH + 20 + textWidth(`${label} (${map.value.unit ?? ''})`);
  return figure({
    title: map.title,
    summary: `${label} by ${map.rows.label} and ${map.columns.label}, from ${frame.show(frame.low)} to ${frame.show(frame.high)}.`,
    width: Math.max(width, keyWidth),
    height: bottom + BOTTOM,
    drawing: [
      drawNames(map, frame),
      map.values.map((line, r) => line.map((value, c) => drawCell(value, r, c, map, frame))),
      drawLegend(map, frame, bottom + 18),
    ],
    data: dataOf(map, frame),
  });
}
