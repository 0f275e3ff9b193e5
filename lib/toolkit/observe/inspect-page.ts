/** An inspection as a page: heatmaps of every head, grouping, similarity of KV heads, and the popular rule. */
import { heatmap, lineChart, page, table, type Markup } from '../html';
import type { InspectReport } from './inspect';
import { conclusions, headTable, layerTable, notes, pairsOf } from './inspect-tables';
import type { Averaged } from './layer-aggregate';
import { CHEAP_ERROR, COSTLY_ERROR } from './verdict';

/** Pairs of KV heads beyond which a map of them is no picture any more. */
const MOST_PAIRS = 120;

const MAPS: readonly [Averaged, title: string, unit: string | undefined][] = [
  ['entropy', 'Normalised entropy', 'H / ln n'],
  ['sinkMass', 'Weight on the first tokens', undefined],
  ['recentMass', 'Weight on the newest tokens', undefined],
  ['effectiveContext', 'Effective context', 'keys'],
];

const HEADS = { rows: { label: 'layer' }, columns: { label: 'query head' } };

function headMaps({ layers }: InspectReport): Markup[] {
  const maps = MAPS.map(([key, title, unit]) =>
    heatmap({
      ...{ title, ...HEADS, value: { label: title.toLowerCase(), unit } },
      values: layers.map(({ heads }) => heads.map((head) => head[key].mean)),
      range: key === 'effectiveContext' ? undefined : [0, 1],
    }),
  );
  const logits = heatmap({
    ...{ title: 'Maximum logit', ...HEADS, value: { label: 'maximum logit' } },
    values: layers.map(({ heads }) => heads.map(({ maxLogit }) => maxLogit)),
  });
  return [...maps, logits];
}

function spreadMap({ layers, heads }: InspectReport): Markup[] {
  if (layers.every(({ kvHeads }) => kvHeads === heads)) return [];
  return [
    heatmap({
      title: 'Spread of mean entropy within a group',
      ...{ rows: { label: 'layer' }, columns: { label: 'KV head' }, value: { label: 'spread' } },
      values: layers.map(({ groups }) => groups.map(({ spread }) => spread)),
    }),
  ];
}

/** Layers by pairs of KV heads. */
function similarityMaps({ layers }: InspectReport): Markup[] {
  const most = Math.max(...layers.map(({ kvHeads }) => kvHeads));
  const pairs = pairsOf(most);
  if (pairs.length === 0 || pairs.length > MOST_PAIRS) return [];
  const names = pairs.map(([i, j]) => `${i}-${j}`);
  return (['key', 'value'] as const).flatMap((part) =>
    (['plain', 'aligned'] as const).map((kind) =>
      heatmap({
        title: `${part === 'key' ? 'Keys' : 'Values'} of two KV heads, ${kind === 'plain' ? 'cosine as they stand' : 'aligned'}`,
        ...{ rows: { label: 'layer' }, columns: { label: 'pair of KV heads', names } },
        value: { label: 'similarity' },
        values: layers.map(({ likeness }) =>
          pairs.map(([i, j]) => likeness[kind][part][i]?.[j] ?? NaN),
        ),
        range: kind === 'plain' ? [-1, 1] : [0, 1],
        diverging: kind === 'plain',
      }),
    ),
  );
}

function errorChart({ layers }: InspectReport): Markup[] {
  const tried = Math.max(0, ...layers.map(({ groupings }) => groupings.length));
  if (tried === 0) return [];
  const sizeOf = (i: number): string => {
    const sizes = layers.flatMap(({ kvHeads, groupings }) =>
      i < groupings.length ? [kvHeads / groupings[i].kvHeads] : [],
    );
    return [...new Set(sizes)].map((size) => `${size}:1`).join(', ');
  };
  const series = Array.from({ length: tried }, (_, i) => ({
    name: sizeOf(i),
    points: layers.map(({ layer, groupings }): [number, number] => [
      layer,
      groupings[i]?.outputError ?? NaN,
    ]),
  }));
  const marks = [
    { name: 'cheap below', y: CHEAP_ERROR },
    { name: 'costly above', y: COSTLY_ERROR },
  ];
  return [
    lineChart({
      title: 'Error of the attention output when KV heads are grouped',
      ...{ x: { label: 'layer' }, y: { label: 'relative error' }, series, marks },
    }),
  ];
}

export function inspectPage(report: InspectReport): string {
  const { model, text, heads, headDim, layers } = report;
  const about =
    `${model}: ${layers.length} layers, ${heads} query heads of ${headDim}. ` +
    `${text.path}: ${text.tokens} tokens in ${text.windows} windows of up to ${text.window}.`;
  return page(
    'Attention of a model',
    [
      { heading: 'Layers', content: table(layerTable(report)), notes: notes(report) },
      {
        heading: 'Which layers are cheap to group',
        text: conclusions(report),
        content: errorChart(report),
      },
      { heading: 'Heads', content: [...headMaps(report), ...spreadMap(report)] },
      {
        heading: 'Similarity of KV heads',
        text: 'Of what they hold for the text. 1: the same (aligned: but for a rotation), 0: orthogonal.',
        content: similarityMaps(report),
      },
      { heading: 'All heads', content: table(headTable(report)) },
    ],
    { about },
  );
}
