/** Python's strftime in English and local time, as templates use it; a directive that is not here stays as it is. */

const MONTHS =
  'January February March April May June July August September October November December'.split(
    ' ',
  );
const DAYS = 'Sunday Monday Tuesday Wednesday Thursday Friday Saturday'.split(' ');
const DAY_MS = 86_400_000;

function padded(value: number, digits = 2): string {
  return String(value).padStart(digits, '0');
}

const DIRECTIVES: Readonly<Record<string, (date: Date) => string>> = {
  Y: (date) => String(date.getFullYear()),
  y: (date) => padded(date.getFullYear() % 100),
  m: (date) => padded(date.getMonth() + 1),
  B: (date) => MONTHS[date.getMonth()],
  b: (date) => MONTHS[date.getMonth()].slice(0, 3),
  d: (date) => padded(date.getDate()),
  j: (date) => padded(dayOfYear(date), 3),
  A: (date) => DAYS[date.getDay()],
  a: (date) => DAYS[date.getDay()].slice(0, 3),
  H: (date) => padded(date.getHours()),
  I: (date) => padded(date.getHours() % 12 || 12),
  p: (date) => (date.getHours() < 12 ? 'AM' : 'PM'),
  M: (date) => padded(date.getMinutes()),
  S: (date) => padded(date.getSeconds()),
  '%': () => '%',
};

/** From 1, by calendar days: the hours of a day may be 23 or 25. */
function dayOfYear(date: Date): number {
  const today = Date.UTC(date.getFullYear(), date.getMonth(), date.getDate());
  return (today - Date.UTC(date.getFullYear(), 0, 1)) / DAY_MS + 1;
}

export function strftime(date: Date, format: string): string {
  return format.replace(/%([a-zA-Z%])/g, (whole, name: string) =>
    Object.hasOwn(DIRECTIVES, name) ? DIRECTIVES[name](date) : whole,
  );
}
