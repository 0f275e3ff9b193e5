/** Lines over a common axis: loss over steps, output error over layers, bytes over context. */
import { formatValue } from '../numbers';
import { dashOf, emptyFigure, figure, legend, px, seriesIndex, textWidth } from './figure';
import type { FigureData } from './figure';
import { markup, type Content, type Markup } from './markup';
import { axisTitle, scaleFor, type Axis, type Scale } from './scale';

export interface Series {
  name: string;
  /** [x, y]; a y that is not finite leaves a gap. */
  points: readonly (readonly [x: number, y: number])[];
}

export interface LineChart {
  title: string;
  x: Axis;
  y: Axis;
  series: readonly Series[];
  /** Horizontal lines with a name, such as a limit. */
  marks?: readonly { name: string; y: number }[];
}

/** Pixels. */
const WIDTH = 720;
const PLOT_HEIGHT = 280;
const TOP = 10;
const BOTTOM = 46;
const RIGHT = 28;
/** More points of a line than this are drawn as the least and the greatest of runs of them. */
const MAX_POINTS = 1200;
/** With so few points each has a dot. */
const MAX_DOTS = 60;

interface Frame {
  left: number;
  width: number;
  x: Scale;
  y: Scale;
}

type Point = readonly [number, number];

/** Least and greatest of each run, in their order: no spike is lost. */
function reduced(points: readonly Point[]): readonly Point[] {
  if (points.length <= MAX_POINTS) return points;
  const run = Math.ceil((2 * points.length) / MAX_POINTS);
  const kept: Point[] = [];
  for (let from = 0; from < points.length; from += run) {
    const part = points.slice(from, from + run);
    const finite = part.filter(([, y]) => Number.isFinite(y));
    const low = finite.reduce((a, b) => (b[1] < a[1] ? b : a), finite[0]);
    const high = finite.reduce((a, b) => (b[1] > a[1] ? b : a), finite[0]);
    if (finite.length > 0) kept.push(...part.filter((point) => point === low || point === high));
    if (finite.length < part.length) kept.push([part[0][0], NaN]);
  }
  return kept;
}

function place([x, y]: Point, frame: Frame): [number, number] | null {
  const [across, up] = [frame.x.at(x), frame.y.at(y)];
  if (across === null || up === null) return null;
  return [frame.left + across * frame.width, TOP + (1 - up) * PLOT_HEIGHT];
}

function drawSeries({ name, points }: Series, index: number, frame: Frame, chart: LineChart) {
  let pen = 'M';
  const commands: string[] = [];
  const dots: Content[] = [];
  for (const point of reduced(points)) {
    const at = place(point, frame);
    if (at === null) {
      pen = 'M';
      continue;
    }
    commands.push(`${pen}${px(at[0])} ${px(at[1])}`);
    pen = 'L';
    if (points.length > MAX_DOTS) continue;
    const [x, y] = [frame.x.format(point[0]), (chart.y.format ?? formatValue)(point[1])];
    dots.push(
      markup`<circle class="s${seriesIndex(index)}" cx="${px(at[0])}" cy="${px(at[1])}" r="2.6"><title>${`${name}: ${x}, ${y}`}</title></circle>`,
    );
  }
  const line = markup`<path class="line s${seriesIndex(index)}" stroke-dasharray="${dashOf(index)}" d="${commands.join('')}"/>`;
  return commands.length === 0 ? null : markup`${line}${dots}\n`;
}

function axes({ left, width, x, y }: Frame, chart: LineChart): Markup {
  const base = TOP + PLOT_HEIGHT;
  const across = x.ticks.map((tick) => {
    const at = px(left + x.at(tick)! * width);
    return markup`<path class="rule" d="M${at} ${TOP}V${base}"/><text x="${at}" y="${base + 17}" text-anchor="middle">${x.format(tick)}</text>`;
  });
  const up = y.ticks.map((tick) => {
    const at = TOP + (1 - y.at(tick)!) * PLOT_HEIGHT;
    return markup`<path class="rule" d="M${left} ${px(at)}h${width}"/><text x="${left - 6}" y="${px(at + 4)}" text-anchor="end">${y.format(tick)}</text>`;
  });
  const middle = TOP + PLOT_HEIGHT / 2;
  return markup`${across}${up}
<path class="axis" d="M${left} ${TOP}V${base}h${width}"/>
<text class="soft" x="${px(left + width / 2)}" y="${base + 38}" text-anchor="middle">${axisTitle(chart.x)}</text>
<text class="soft" x="12" y="${middle}" transform="rotate(-90 12 ${middle})" text-anchor="middle">${axisTitle(chart.y)}</text>
`;
}

function drawMarks({ marks = [] }: LineChart, { left, width, y }: Frame): Content {
  return marks.map((mark) => {
    const up = y.at(mark.y);
    if (up === null) return null;
    const at = TOP + (1 - up) * PLOT_HEIGHT;
    const text = at - TOP < 14 ? at + 14 : at - 4;
    return markup`<path class="axis" stroke-dasharray="4 3" d="M${left} ${px(at)}h${width}"/><text class="soft halo" x="${left + width - 4}" y="${px(text)}" text-anchor="end">${mark.name}</text>\n`;
  });
}

/** A row per x, a column per line. */
function dataOf({ x, y, series }: LineChart): FigureData {
  const columns = [
    { key: 'x', title: axisTitle(x) },
    ...series.map(({ name }, i) => ({ key: String(i), title: `${name}, ${axisTitle(y)}` })),
  ];
  const lines = series.map(({ points }) => new Map(points));
  const xs = [...new Set(lines.flatMap((line) => [...line.keys()]))].sort((a, b) => a - b);
  const show = (value: number | undefined, { format = formatValue }: Axis): string | null =>
    value === undefined ? null : format(value);
  const row = (index: number) => ({
    x: show(xs[index], x),
    ...Object.fromEntries(lines.map((line, i) => [String(i), show(line.get(xs[index]), y)])),
  });
  return { columns, count: xs.length, row };
}

function span(values: readonly number[], format: (value: number) => string): string {
  const ends = [Math.min, Math.max].map((end) => values.reduce((a, b) => end(a, b)));
  return ends.map(format).join(' to ');
}

export function lineChart(chart: LineChart): Markup {
  const { title, series, marks = [] } = chart;
  const points = series.flatMap((line) => line.points);
  const shown = points.filter(([x, y]) => Number.isFinite(x) && Number.isFinite(y));
  if (shown.length === 0) return emptyFigure(title);
  const xs = shown.map(([x]) => x);
  const ys = [...shown.map(([, y]) => y), ...marks.map(({ y }) => y)];
  const [x, y] = [scaleFor(xs, chart.x), scaleFor(ys, chart.y)];
  const labels = y.ticks.map((tick) => textWidth(y.format(tick)));
  const left = Math.ceil(28 + labels.reduce((a, b) => Math.max(a, b), 0));
  const frame: Frame = { left, width: WIDTH - left - RIGHT, x, y };
  const names = series.length > 1 ? series.map(({ name }) => name) : [];
  const key = legend(names, frame.width, 'line');
  const acrossSpan = span(xs, chart.x.format ?? ((value) => x.format(value)));
  const upSpan = span(
    shown.map(([, value]) => value),
    chart.y.format ?? formatValue,
  );
  return figure({
    title,
    summary: `Lines: ${series.map(({ name }) => name).join(', ')}; ${axisTitle(chart.y)}, ${upSpan}, over ${axisTitle(chart.x)}, ${acrossSpan}.`,
    width: WIDTH,
    height: TOP + PLOT_HEIGHT + BOTTOM + key.height,
    drawing: [
      axes(frame, chart),
      series.map((line, i) => drawSeries(line, i, frame, chart)),
      drawMarks(chart, frame),
      markup`<g transform="translate(${left} ${TOP + PLOT_HEIGHT + BOTTOM})">${key.drawing}</g>`,
    ],
    data: dataOf(chart),
  });
}
