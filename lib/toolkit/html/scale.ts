/** Axes: from values to a place between 0 and 1, and round numbers to label. */
import { formatCount, formatValue, grouped } from '../numbers';

export interface Axis {
  label: string;
  unit?: string;
  /** 'log2' labels powers of two. Values that a logarithm does not take are not drawn. */
  scale?: 'linear' | 'log' | 'log2';
  /** Ends of the axis, where the values alone shall not decide. */
  min?: number;
  max?: number;
  /** Only whole numbers are labelled, as of layers and tokens. */
  integer?: boolean;
  /** How labels and values are written; default: as few digits as tell the labels apart. */
  format?: (value: number) => string;
}

export interface Scale {
  readonly ticks: readonly number[];
  /** 0 at the axis' low end, 1 at its high one; null for what has no place on it. */
  at(value: number): number | null;
  format(value: number): string;
}

const TICKS = 6;

/** The smallest of 1, 2, 5 times a power of ten that is at least `least`. */
function roundStep(least: number): number {
  const power = 10 ** Math.floor(Math.log10(least));
  // 5 * power rounded up is the next power, whatever a division rounds to.
  return ([1, 2, 5].find((factor) => factor * power >= least * (1 - 1e-9)) ?? 10) * power;
}

/** Decimals that tell multiples of a step apart. */
function decimalsOf(step: number): number {
  return Math.max(0, -Math.floor(Math.log10(step) + 1e-9));
}

/** Labels of multiples of `step` up to `most`: 0.25, 1,000, 20k, 3e-5. */
function tickFormat(step: number, most: number): (value: number) => string {
  if (most > 0 && most < 1e-3) return (value) => (value === 0 ? '0' : value.toExponential());
  const [unit, name] = (
    [
      [1e12, 'T'],
      [1e9, 'G'],
      [1e6, 'M'],
      [1e3, 'k'],
    ] as const
  ).find(([size]) => most >= 10 * size && step >= size / 100) ?? [1, ''];
  const decimals = decimalsOf(step / unit);
  return (value) => (value === 0 && unit > 1 ? '0' : `${grouped(value / unit, decimals)}${name}`);
}

function linear(low: number, high: number, { integer, min, max, format }: Axis): Scale {
  const rough = roundStep((high - low) / (TICKS - 1));
  const step = integer ? Math.max(1, rough) : rough;
  const start = min ?? Math.floor(low / step + 1e-9) * step;
  const end = max ?? Math.ceil(high / step - 1e-9) * step;
  const first = Math.ceil(start / step - 1e-9);
  const last = Math.floor(end / step + 1e-9);
  // A multiple of the step has no more decimals than the step; products have.
  const decimals = Math.min(20, decimalsOf(step) + 1);
  const ticks = Array.from({ length: last - first + 1 }, (_, i) =>
    Number(((first + i) * step).toFixed(decimals)),
  );
  return {
    ticks,
    at: (value) => (Number.isFinite(value) ? (value - start) / (end - start) : null),
    format: format ?? tickFormat(step, Math.max(Math.abs(start), Math.abs(end))),
  };
}

function powersOfTwo(low: number, high: number): number[] {
  const first = Math.floor(Math.log2(low) + 1e-9);
  const last = Math.ceil(Math.log2(high) - 1e-9);
  const step = Math.ceil((last - first + 1) / (2 * TICKS)) || 1;
  const count = Math.floor((last - first) / step) + 1;
  return Array.from({ length: count }, (_, i) => 2 ** (first + i * step));
}

/** 1, 2, 5 of each decade; over many decades their beginnings. */
function decades(low: number, high: number): number[] {
  const first = Math.floor(Math.log10(low) + 1e-9);
  const last = Math.ceil(Math.log10(high) - 1e-9);
  const powers = Array.from({ length: last - first + 1 }, (_, i) => 10 ** (first + i));
  const many = powers.length > TICKS / 2;
  const ticks = many ? powers : powers.flatMap((power) => [power, 2 * power, 5 * power]);
  return ticks.filter((tick) => tick >= low / 10 && tick <= 10 ** last);
}

/** 0.002, 500, 10M */
function compact(value: number): string {
  return value < 1e5 ? formatValue(value) : formatCount(value).replace(' ', '');
}

function logarithmic(low: number, high: number, { scale, min, max, format }: Axis): Scale {
  const all = scale === 'log2' ? powersOfTwo(low, high) : decades(low, high);
  const below = all.filter((tick) => tick <= low * (1 + 1e-9));
  const start = min ?? below.at(-1) ?? low;
  const end = max ?? all.find((tick) => tick >= high * (1 - 1e-9)) ?? high;
  const width = Math.log(end / start) || 1;
  return {
    ticks: all.filter((tick) => tick >= start * (1 - 1e-9) && tick <= end * (1 + 1e-9)),
    at: (value) => (value > 0 && Number.isFinite(value) ? Math.log(value / start) / width : null),
    format: format ?? (scale === 'log2' ? (value) => formatValue(value) : compact),
  };
}

/** A scale for those of the values that can be drawn; without any, from 0 to 1. */
export function scaleFor(values: readonly number[], axis: Axis): Scale {
  const log = axis.scale === 'log' || axis.scale === 'log2';
  const drawn = values.filter((value) => Number.isFinite(value) && (!log || value > 0));
  let low = axis.min ?? drawn.reduce((a, b) => Math.min(a, b), Infinity);
  let high = axis.max ?? drawn.reduce((a, b) => Math.max(a, b), -Infinity);
  if (!(low <= high)) [low, high] = log ? [1, 10] : [0, 1];
  if (low === high) {
    // One value stands in the middle of an axis of its magnitude.
    const margin = log ? 0 : Math.abs(low) / 2 || 0.5;
    [low, high] = log ? [low / 2, low * 2] : [low - margin, high + margin];
  }
  return log ? logarithmic(low, high, axis) : linear(low, high, axis);
}

export function axisTitle({ label, unit }: Axis): string {
  return unit === undefined ? label : `${label} (${unit})`;
}
