/** An inspection as tables and lines of text, for terminal and page alike. */
import type { Column, Row, TableData } from '../table';
import type { InspectReport, LayerInspection } from './inspect';
import { CHEAP_ERROR, COSTLY_ERROR, ENTROPY_RULE } from './verdict';

const STATISTICS: Column[] = [
  { key: 'entropy', title: 'entropy', decimals: 3 },
  { key: 'sinkMass', title: 'sink', decimals: 3 },
  { key: 'recentMass', title: 'recent', decimals: 3 },
  { key: 'effectiveContext', title: 'eff. context', decimals: 1 },
  { key: 'maxLogit', title: 'max logit', decimals: 1 },
];

function mean(values: readonly number[]): number {
  return values.reduce((a, b) => a + b, 0) / values.length;
}

/** A row for each layer: means over its heads, the widest spread of a group, grouping and verdict. */
export function layerTable({ layers }: InspectReport): TableData {
  const tried = Math.max(0, ...layers.map(({ groupings }) => groupings.length));
  const counts = Array.from({ length: tried }, (_, i) => i);
  const columns: Column[] = [
    { key: 'layer', title: 'layer' },
    { key: 'kvHeads', title: 'KV heads' },
    ...STATISTICS,
    { key: 'spread', title: 'spread', decimals: 3 },
    { key: 'alarm', title: 'alarm' },
    { key: 'plain', title: 'cosine', decimals: 3 },
    { key: 'aligned', title: 'aligned', decimals: 3 },
    ...counts.flatMap((i): Column[] => [
      { key: `to${i}`, title: 'to KV heads' },
      { key: `error${i}`, title: 'output error', decimals: 3 },
    ]),
    { key: 'verdict', title: 'to group' },
    { key: 'nats', title: 'H (nats)', decimals: 2 },
    { key: 'rule', title: `H < ${ENTROPY_RULE}` },
  ];
  return { columns, rows: layers.map(layerRow) };
}

function layerRow(layer: LayerInspection): Row {
  const { heads, groups, groupings, likeness } = layer;
  const over = (of: (head: (typeof heads)[number]) => number): number => mean(heads.map(of));
  const errors = groupings.flatMap(({ kvHeads, outputError }, i): [string, number][] => [
    [`to${i}`, kvHeads],
    [`error${i}`, outputError],
  ]);
  return {
    layer: layer.layer,
    kvHeads: layer.kvHeads,
    entropy: over((head) => head.entropy.mean),
    sinkMass: over((head) => head.sinkMass.mean),
    recentMass: over((head) => head.recentMass.mean),
    effectiveContext: over((head) => head.effectiveContext.mean),
    maxLogit: Math.max(...heads.map(({ maxLogit }) => maxLogit)),
    spread: Math.max(...groups.map(({ spread }) => spread)),
    alarm: groups.some(({ alarm }) => alarm) ? 'yes' : '',
    plain: meanOfPairs(likeness.plain),
    aligned: meanOfPairs(likeness.aligned),
    ...Object.fromEntries(errors),
    verdict: layer.verdict,
    nats: layer.entropyNats,
    rule: layer.ruleSaysSafe ? 'safe' : '',
  };
}

/** Similarity of two KV heads, keys and values together, over all pairs; null for a single head. */
function meanOfPairs({ key, value }: { key: number[][]; value: number[][] }): number | null {
  const pairs = pairsOf(key.length).map(([i, j]) => (key[i][j] + value[i][j]) / 2);
  return pairs.length > 0 ? mean(pairs) : null;
}

/** [i, j] with i < j. */
export function pairsOf(heads: number): [number, number][] {
  return Array.from({ length: heads }, (_, i) =>
    Array.from({ length: heads - i - 1 }, (_, d): [number, number] => [i, i + d + 1]),
  ).flat();
}

/** A row for each query head of each layer. */
export function headTable({ layers, heads: queryHeads }: InspectReport): TableData {
  const columns: Column[] = [
    { key: 'layer', title: 'layer' },
    { key: 'head', title: 'head' },
    { key: 'kvHead', title: 'KV head' },
    ...STATISTICS,
  ];
  const rows = layers.flatMap(({ layer, kvHeads, heads }) =>
    heads.map(({ head, entropy, sinkMass, recentMass, effectiveContext, maxLogit }): Row => {
      const means = { entropy: entropy.mean, sinkMass: sinkMass.mean, recentMass: recentMass.mean };
      const kvHead = Math.floor((head * kvHeads) / queryHeads);
      const context = effectiveContext.mean;
      return { layer, head, kvHead, ...means, effectiveContext: context, maxLogit };
    }),
  );
  return { columns, rows };
}

/** How to read the tables. */
export function notes({ sinkTokens, recentTokens, spreadAlarm }: InspectReport): string[] {
  return [
    `Entropy is H / ln n over the n keys a row sees, 1 uniform, 0 a single key; sink: weight of the first ${sinkTokens} ` +
      `tokens; recent: weight of the newest ${recentTokens}; effective context: exp(H) keys. Means over rows that see two ` +
      'keys or more; the maximum logit is the largest of all.',
    `Spread: largest less smallest mean entropy of the query heads that share a KV head, alarm above ${spreadAlarm}. ` +
      'Cosine and aligned: mean similarity of two KV heads, keys and values, as they stand and after the rotations that ' +
      'conversion may apply.',
    "Output error: sqrt(sum |o - o'|^2 / sum |o|^2) of the layer's attention output, measured for its own inputs, with KV " +
      'heads grouped by similarity and merged by the aligned method, without training. ' +
      `To group: cheap below ${CHEAP_ERROR}, costly from ${COSTLY_ERROR} on, by the first of the counts.`,
  ];
}

/** Layers from the cheapest to group to the dearest; what the popular rule makes of them, and why it fails. */
export function conclusions({ layers, rule }: InspectReport): string[] {
  const errorOf = ({ groupings }: LayerInspection): number => groupings[0].outputError;
  const able = layers.filter(({ groupings }) => groupings.length > 0);
  if (able.length === 0)
    return ['No layer was grouped: there is nothing to hold the rule against.'];
  const order = [...able].sort((a, b) => errorOf(a) - errorOf(b));
  const listed = order.map((layer) => `${layer.layer} (${errorOf(layer).toFixed(3)})`).join(', ');
  const unlike = rule.safeButCostly + rule.cheapButUnsafe;
  const correlations =
    rule.entropyCorrelation === null
      ? ''
      : ` Rank correlation with the measured error over layers: entropy ${rule.entropyCorrelation.toFixed(2)}, ` +
        `aligned similarity ${rule.similarityCorrelation!.toFixed(2)}.`;
  return [
    `Layers from the cheapest to group to the dearest, with their output error: ${listed}.`,
    `"Entropy below ${ENTROPY_RULE} means safe to group" calls ${rule.safe} of ${rule.layers} layers safe; ` +
      `${rule.safeButCostly} of these are costly, ${rule.cheapButUnsafe} of the others cheap: ` +
      `${unlike === 0 ? 'no layer' : unlike === 1 ? 'one layer' : `${unlike} layers`} clearly misjudged.${correlations}`,
    `The rule has no basis: it names no unit; ${ENTROPY_RULE} nats are a uniform row over 33 keys, so every row that sees ` +
      'fewer passes it, and the same head passes in a short text and fails in a long one; and how widely a query head looks ' +
      'says nothing about whether the keys and values of two KV heads can be made one.',
  ];
}
