/** A page that needs nothing else: styles in its head, pictures inline, no scripts, nothing fetched; light and dark. */
import { markup, type Content, type Markup } from './markup';
import { SERIES_COLOURS } from './colours';

/** One line, or one of several paragraphs. */
type Text = string | readonly string[];

export interface Section {
  heading?: string;
  text?: Text;
  /** Tables, charts, further markup. */
  content?: Content;
  /** What a reader must know to read it right, below the content. */
  notes?: Text;
}

export interface PageOptions {
  /** What everything below is about: models, settings, machine. */
  about?: Text;
  /** BCP 47 language of the texts; default 'en'. */
  language?: string;
}

const SERIES_STYLES = SERIES_COLOURS.map(
  ({ light }, i) => `.s${i} { fill: var(--s${i}, ${light}); stroke: var(--s${i}, ${light}); }`,
).join('\n');

const variables = (theme: 'light' | 'dark'): string =>
  SERIES_COLOURS.map((colour, i) => `--s${i}: ${colour[theme]};`).join(' ');

const STYLE = `:root { color-scheme: light dark; --ink: #1b1b1f; --soft: #5b5b66; --paper: #ffffff; --rule: #d9d9e0; ${variables('light')} }
@media (prefers-color-scheme: dark) { :root { --ink: #e6e6ea; --soft: #a2a2ad; --paper: #17171b; --rule: #3a3a44; ${variables('dark')} } }
body { font: 15px/1.5 system-ui, sans-serif; color: var(--ink); background: var(--paper); margin: 2rem auto; max-width: 72rem; padding: 0 1rem; }
h1 { font-size: 1.6rem; } h2 { font-size: 1.2rem; margin-top: 2.5rem; }
.about, .notes, caption, summary { color: var(--soft); } .notes { font-size: 0.9rem; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; font-size: 0.85rem; margin: 0.5rem 0; }
caption { text-align: left; padding-bottom: 0.3rem; }
th, td { padding: 2px 10px; border-bottom: 1px solid var(--rule); text-align: left; vertical-align: top; }
th { font-weight: 600; } .number { text-align: right; font-variant-numeric: tabular-nums; white-space: nowrap; }
figure { margin: 1.5rem 0; } figcaption { font-weight: 600; margin-bottom: 0.4rem; }
svg { display: block; max-width: 100%; height: auto; } svg text { font: 12px system-ui, sans-serif; fill: var(--ink); stroke: none; }
svg .soft { fill: var(--soft); } svg .halo { stroke: var(--paper); stroke-width: 3px; paint-order: stroke; } svg .rule { stroke: var(--rule); fill: none; } svg .axis { stroke: var(--soft); fill: none; }
svg .whisker { stroke: var(--ink); fill: none; } svg .none { fill: none; stroke: var(--rule); } svg .line { fill: none; stroke-width: 1.8; stroke-linejoin: round; }
${SERIES_STYLES}
@media print { details { display: none; } }`;

function paragraphs(text: Text | undefined, kind: string): Content {
  if (text === undefined) return null;
  const lines = typeof text === 'string' ? [text] : text;
  return lines.map((line) =>
    kind === '' ? markup`<p>${line}</p>\n` : markup`<p class="${kind}">${line}</p>\n`,
  );
}

function sectionMarkup({ heading, text, content, notes }: Section): Markup {
  const title = heading === undefined ? null : markup`<h2>${heading}</h2>\n`;
  return markup`<section>\n${title}${paragraphs(text, '')}${content}\n${paragraphs(notes, 'notes')}</section>\n`;
}

/** The whole document. Everything that is no Markup is escaped. */
export function page(
  title: string,
  sections: readonly Section[],
  { about, language = 'en' }: PageOptions = {},
): string {
  const body = markup`<html lang="${language}">
<head>
<meta charset="utf-8"/>
<meta name="viewport" content="width=device-width, initial-scale=1"/>
<title>${title}</title>
<style>
${STYLE}
</style>
</head>
<body>
<main>
<h1>${title}</h1>
${paragraphs(about, 'about')}${sections.map(sectionMarkup)}</main>
</body>
</html>
`;
  return `<!DOCTYPE html>\n${body.html}`;
}
