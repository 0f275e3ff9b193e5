/** Numbers as people read them. */

const BINARY_UNITS = ['B', 'KiB', 'MiB', 'GiB', 'TiB', 'PiB'];
const DECIMAL_UNITS = ['', 'k', 'M', 'G', 'T', 'P'];

/** 1234567.5 as 1,234,567.5. */
export function grouped(value: number, decimals = 0): string {
  const [whole, part] = value.toFixed(decimals).split('.');
  const commas = whole.replace(/\B(?=(\d{3})+$)/g, ',');
  return part === undefined ? commas : `${commas}.${part}`;
}

function withUnit(value: number, base: number, units: readonly string[]): [number, string] {
  let unit = 0;
  // What rounds to a whole unit is told in that unit.
  while (Math.abs(value) >= base * 0.9995 && unit + 1 < units.length) {
    value /= base;
    unit++;
  }
  return [value, units[unit]];
}

/** Three significant digits, without zeros that say nothing: 1.25, 20, 320. */
function threeDigits(value: number): string {
  const decimals = Math.abs(value) >= 99.95 ? 0 : Math.abs(value) >= 9.995 ? 1 : 2;
  return String(Number(value.toFixed(decimals)));
}

/** 1342177280 as 1.25 GiB. */
export function formatBytes(bytes: number): string {
  if (!Number.isFinite(bytes)) return String(bytes);
  const [value, unit] = withUnit(bytes, 1024, BINARY_UNITS);
  return unit === 'B' ? `${grouped(value)} B` : `${threeDigits(value)} ${unit}`;
}

/** 6738415616 as 6.74 G. */
export function formatCount(count: number): string {
  if (!Number.isFinite(count)) return String(count);
  const [value, unit] = withUnit(count, 1000, DECIMAL_UNITS);
  return unit === '' ? threeDigits(value) : `${threeDigits(value)} ${unit}`;
}

/** Seconds as s, ms or µs. */
export function formatSeconds(seconds: number): string {
  if (!Number.isFinite(seconds)) return String(seconds);
  if (seconds >= 1) return `${threeDigits(seconds)} s`;
  return seconds >= 1e-3 ? `${threeDigits(seconds * 1e3)} ms` : `${threeDigits(seconds * 1e6)} µs`;
}

/** About four significant digits of a value of any magnitude. */
export function formatValue(value: number): string {
  if (!Number.isFinite(value) || Number.isInteger(value)) {
    return Math.abs(value) < 1e15 ? grouped(value) : String(value);
  }
  const size = Math.abs(value);
  if (size < 1e-3 || size >= 1e9) return value.toExponential(2);
  return size >= 1000 ? grouped(value) : String(Number(value.toPrecision(4)));
}
