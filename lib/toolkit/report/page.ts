/** A damage report as a page with plots, which needs no network. */
import { barChart, page, table, type Section } from '../html';
import type { DamageReport, LayerDamage } from './damage';
import { layerTable, summaryLines } from './tables';

export function damagePage(report: DamageReport): string {
  const { method, source, regroup, layers } = report;
  const sections: Section[] = [
    {
      heading: 'The model',
      text: summaryLines(report),
      content: [lossChart(report), cacheChart(report)],
    },
    {
      heading: 'Layers',
      content: [errorChart(layers), table(layerTable(report))],
      notes: [
        'Output error: relative error of the attention output, after the output projection, of each converted layer given the original inputs. Key and value weights: relative errors of the products that scores and outputs are made of, all inputs alike.',
      ],
    },
  ];
  const groups = regroup ? 'groups by similarity' : 'groups of neighbours';
  return page(`Conversion of ${source}`, sections, { about: `method ${method}, ${groups}` });
}

function lossChart({ crossEntropy }: DamageReport) {
  if (crossEntropy === null) return null;
  return barChart({
    title: 'Cross-entropy',
    value: { label: 'cross-entropy', unit: 'nats a token' },
    bars: [
      { label: 'before', value: crossEntropy.before },
      { label: 'after', value: crossEntropy.after },
    ],
  });
}

function cacheChart({ bytesPerToken }: DamageReport) {
  return barChart({
    title: 'KV cache in f16',
    value: { label: 'cache', unit: 'bytes a token' },
    bars: [
      { label: 'before', value: bytesPerToken.before },
      { label: 'after', value: bytesPerToken.after },
    ],
  });
}

function errorChart(layers: readonly LayerDamage[]) {
  return barChart({
    title: 'Errors by layer',
    value: { label: 'relative error' },
    series: ['output', 'key weights', 'value weights'],
    bars: layers.flatMap(({ layer, outputError, keyError, valueError }) => [
      ...(outputError === null
        ? []
        : [{ label: `layer ${layer}`, series: 'output', value: outputError }]),
      { label: `layer ${layer}`, series: 'key weights', value: keyError },
      { label: `layer ${layer}`, series: 'value weights', value: valueError },
    ]),
  });
}
