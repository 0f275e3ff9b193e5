/** What all charts share: a captioned picture that is told in words too, with its values as a table below it. */
import type { Column, Row } from '../table';
import { SERIES_DASHES, SERIES_COLOURS } from './colours';
import { markup, type Content, type Markup } from './markup';
import { table } from './table';

/** Pixels of a character of the charts' 12-pixel type, about. */
const CHARACTER_WIDTH = 6.7;
const LEGEND_ROW = 20;

/** Rows of a table below a chart at most; of more, evenly many are shown. */
const MAX_TABLE_ROWS = 64;

/** Rows are made when they are shown. */
export interface FigureData {
  columns: readonly Column[];
  count: number;
  row: (index: number) => Row;
}

export interface Picture {
  title: string;
  /** One sentence on what is drawn, for those who do not see it. */
  summary: string;
  width: number;
  height: number;
  drawing: Content;
  data: FigureData;
}

/** Pixels with one decimal: more is invisible. */
export function px(value: number): string {
  return String(Number(value.toFixed(1)));
}

export function textWidth(text: string): number {
  return text.length * CHARACTER_WIDTH;
}

/** As much of a text as fits. */
export function fitted(text: string, width: number): string {
  const most = Math.max(2, Math.floor(width / CHARACTER_WIDTH));
  return text.length <= most ? text : `${text.slice(0, most - 1)}…`;
}

export function seriesIndex(series: number): number {
  return series % SERIES_COLOURS.length;
}

export function dashOf(series: number): string {
  return SERIES_DASHES[seriesIndex(series)];
}

/** Names beside samples of their colours, in as many rows as they need. */
export function legend(
  names: readonly string[],
  width: number,
  sample: 'line' | 'box',
): { height: number; drawing: Content } {
  let [x, y] = [0, 0];
  const entries = names.map((name, i) => {
    const text = fitted(name, width - 30);
    const room = 40 + textWidth(text);
    if (x > 0 && x + room > width) [x, y] = [0, y + LEGEND_ROW];
    const middle = y + LEGEND_ROW / 2;
    const mark =
      sample === 'box'
        ? markup`<rect class="s${seriesIndex(i)}" x="${px(x)}" y="${middle - 6}" width="12" height="12"/>`
        : markup`<path class="line s${seriesIndex(i)}" stroke-dasharray="${dashOf(i)}" d="M${px(x)} ${middle}h22"/>`;
    const at = x + (sample === 'box' ? 17 : 27);
    x += room;
    return markup`${mark}<text x="${px(at)}" y="${middle + 4}">${text}</text>`;
  });
  return { height: names.length === 0 ? 0 : y + LEGEND_ROW + 4, drawing: entries };
}

/** Evenly many of the rows, the first and the last among them; a note where that leaves some out. */
function shortTable({ columns, count, row }: FigureData): Markup {
  const shown = Math.min(count, MAX_TABLE_ROWS);
  const rows = Array.from({ length: shown }, (_, i) =>
    row(shown < count ? Math.round((i * (count - 1)) / (shown - 1)) : i),
  );
  const note = shown < count ? `${shown} of ${count} rows, evenly spread` : undefined;
  return table({ columns, rows }, note);
}

export function figure({ title, summary, width, height, drawing, data }: Picture): Markup {
  return markup`<figure>
<figcaption>${title}</figcaption>
<svg viewBox="0 0 ${px(width)} ${px(height)}" width="${px(width)}" height="${px(height)}" role="img" aria-label="${`${title}. ${summary}`}">
<title>${title}</title>
<desc>${summary}</desc>
${drawing}
</svg>
<details><summary>Values as a table</summary>
${shortTable(data)}
</details>
</figure>`;
}

/** In place of a chart that would have nothing in it. */
export function emptyFigure(title: string): Markup {
  return markup`<figure>\n<figcaption>${title}</figcaption>\n<p class="notes">Nothing to draw: there are no values.</p>\n</figure>`;
}
