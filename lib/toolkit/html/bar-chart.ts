/** Horizontal bars, alone or in groups: one figure for each of several things. */
import { formatValue } from '../numbers';
import { emptyFigure, figure, fitted, legend, px, seriesIndex, textWidth } from './figure';
import type { FigureData } from './figure';
import { markup, type Content, type Markup } from './markup';
import { axisTitle, scaleFor, type Axis, type Scale } from './scale';

export interface Bar {
  /** Neighbours of the same label are a group. */
  label: string;
  /** Which colour it has; '' where there is only one. */
  series?: string;
  /** Not finite: no bar, and the table says so. */
  value: number;
  /** Ends of a whisker, such as percentiles. */
  whisker?: readonly [low: number, high: number];
}

export interface BarChart {
  title: string;
  /** What the bars' lengths are. */
  value: Axis;
  bars: readonly Bar[];
  /** Order, and so colours, of the series; default: as they come. */
  series?: readonly string[];
  /** A line across the bars, such as a share of 1. */
  reference?: number;
}

/** Pixels. */
const BAR_WIDTH = 440;
const MAX_LABEL_WIDTH = 260;
const BAR_HEIGHT = 15;
const BAR_GAP = 3;
const GROUP_GAP = 8;
const AXIS_HEIGHT = 42;

interface Frame {
  left: number;
  scale: Scale;
  zero: number;
  series: readonly string[];
  show: (value: number) => string;
}

function across({ left, scale }: Frame, value: number): number {
  return left + Math.min(1, Math.max(0, scale.at(value) ?? 0)) * BAR_WIDTH;
}

function drawBar(bar: Bar, y: number, frame: Frame): Content {
  if (!Number.isFinite(bar.value)) {
    return markup`<text class="soft" x="${frame.left + 5}" y="${y + 12}">${frame.show(bar.value)}</text>`;
  }
  const [zero, end] = [frame.zero, across(frame, bar.value)];
  const ends = bar.whisker?.every(Number.isFinite)
    ? bar.whisker.map((value) => across(frame, value))
    : null;
  const whisker =
    ends === null
      ? null
      : markup`<path class="whisker" d="M${px(ends[0])} ${y + BAR_HEIGHT / 2}H${px(ends[1])}"/>`;
  const text = Math.max(end, zero, ends?.[1] ?? 0) + 5;
  const colour = seriesIndex(Math.max(0, frame.series.indexOf(bar.series ?? '')));
  const name = [bar.label, bar.series, frame.show(bar.value)].filter(Boolean).join(' · ');
  return markup`<rect class="s${colour}" x="${px(Math.min(zero, end))}" y="${y}" width="${px(Math.abs(end - zero))}" height="${BAR_HEIGHT}"><title>${name}</title></rect>${whisker}<text x="${px(text)}" y="${y + 12}">${frame.show(bar.value)}</text>\n`;
}

function drawAxis(frame: Frame, { value, reference }: BarChart, height: number): Markup {
  const ticks = frame.scale.ticks.map((tick) => {
    const at = px(across(frame, tick));
    return markup`<path class="rule" d="M${at} 0V${height}"/><text x="${at}" y="${height + 16}" text-anchor="middle">${frame.scale.format(tick)}</text>`;
  });
  const line =
    reference === undefined
      ? null
      : markup`<path class="axis reference" stroke-dasharray="4 3" d="M${px(across(frame, reference))} 0V${height}"/>`;
  return markup`${ticks}<path class="axis" d="M${px(frame.zero)} 0V${height}"/>${line}
<text class="soft" x="${frame.left + BAR_WIDTH / 2}" y="${height + 35}" text-anchor="middle">${axisTitle(value)}</text>\n`;
}

function drawLabel(label: string, y: number, left: number): Markup {
  const text = fitted(label, left - 8);
  const whole = text === label ? null : markup`<title>${label}</title>`;
  return markup`<text x="${left - 8}" y="${y + 12}" text-anchor="end">${text}${whole}</text>`;
}

function dataOf({ value, bars }: BarChart, show: (value: number) => string): FigureData {
  const named = bars.some(({ series }) => series !== undefined && series !== '');
  const columns = [
    { key: 'label', title: 'of' },
    ...(named ? [{ key: 'series', title: 'series' }] : []),
    { key: 'value', title: axisTitle(value) },
    { key: 'low', title: 'from' },
    { key: 'high', title: 'to' },
  ];
  const row = (index: number) => {
    const { label, series = null, value: length, whisker } = bars[index];
    const [low, high] = whisker?.map(show) ?? [null, null];
    return { label, series, value: show(length), low, high };
  };
  return { columns, count: bars.length, row };
}

/** Bars begin at zero, or at the axis' low end where it is logarithmic. */
function frameFor({ value, bars, series, reference }: BarChart): Frame {
  const values = bars.flatMap((bar) => [bar.value, ...(bar.whisker ?? [])]).filter(Number.isFinite);
  const linear = (value.scale ?? 'linear') === 'linear';
  const scale = scaleFor(
    [...values, ...(linear ? [0] : []), ...(reference === undefined ? [] : [reference])],
    value,
  );
  const labels = bars.map(({ label }) => textWidth(label)).reduce((a, b) => Math.max(a, b), 0);
  const left = Math.ceil(Math.min(MAX_LABEL_WIDTH, labels)) + 12;
  const frame = {
    ...{ left, scale, zero: left },
    series: series ?? [...new Set(bars.map((bar) => bar.series ?? ''))],
    show: value.format ?? formatValue,
  };
  return { ...frame, zero: linear ? across(frame, 0) : left };
}

export function barChart(chart: BarChart): Markup {
  const { title, bars, value } = chart;
  if (!bars.some((bar) => Number.isFinite(bar.value))) return emptyFigure(title);
  const frame = frameFor(chart);
  let y = 0;
  const drawn = bars.map((bar, i) => {
    const begins = i === 0 || bars[i - 1].label !== bar.label;
    if (begins && i > 0) y += GROUP_GAP;
    const at = y;
    y += BAR_HEIGHT + BAR_GAP;
    return [begins ? drawLabel(bar.label, at, frame.left) : null, drawBar(bar, at, frame)];
  });
  const names = frame.series.filter((name) => name !== '');
  const longest = bars.map((bar) => textWidth(frame.show(bar.value)));
  const width = frame.left + BAR_WIDTH + 10 + longest.reduce((a, b) => Math.max(a, b), 0);
  const key = legend(names, BAR_WIDTH, 'box');
  return figure({
    title,
    summary: `${bars.length} bars of ${axisTitle(value)}.`,
    width,
    height: y + AXIS_HEIGHT + key.height,
    drawing: [
      drawAxis(frame, chart, y),
      drawn,
      markup`<g transform="translate(${frame.left} ${y + AXIS_HEIGHT})">${key.drawing}</g>`,
    ],
    data: dataOf(chart, frame.show),
  });
}
