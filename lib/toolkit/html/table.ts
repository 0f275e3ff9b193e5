/** Tables: of columns and rows, as every report has them. */
import { formatCell, isNumeric, shownColumns, type TableData } from '../table';
import { markup, type Markup } from './markup';

export function table(data: TableData, caption?: string): Markup {
  const shown = shownColumns(data);
  const kinds = shown.map((column) => (isNumeric(data, column) ? markup` class="number"` : null));
  const heads = shown.map(({ title }, c) => markup`<th scope="col"${kinds[c]}>${title}</th>`);
  const rows = data.rows.map(
    (row) =>
      markup`<tr>${shown.map((column, c) => markup`<td${kinds[c]}>${formatCell(row[column.key] ?? null, column)}</td>`)}</tr>\n`,
  );
  const title = caption === undefined ? null : markup`<caption>${caption}</caption>\n`;
  return markup`<div class="wide"><table>
${title}<thead><tr>${heads}</tr></thead>
<tbody>
${rows}</tbody>
</table></div>`;
}
