/** README.md of a converted checkpoint: what was done to it, and what that cost. */
import { basename } from 'node:path';
import { markdownTable } from '../table';
import type { DamageReport } from './damage';
import { layerTable, summaryLines } from './tables';

const METHODS: Readonly<Record<DamageReport['method'], string>> = {
  mean: 'each new KV head is the mean of its group (arXiv 2305.13245)',
  first: 'each new KV head is the first of its group',
  random: 'each new KV head is drawn anew (arXiv 2305.13245, for comparison)',
  medoid: 'each new KV head is the head of its group most like the others',
  aligned:
    'the heads of a group are turned to each other (Procrustes; keys by rotations that commute with RoPE), averaged, and given their norms back (arXiv 2412.20677)',
  fitted:
    'keys and values of a group are its principal components, and the output projection is fitted to the original outputs',
};

export function modelCard(report: DamageReport): string {
  const { method, source, regroup } = report;
  const name = basename(source);
  return [
    `# ${name}, fewer KV heads`,
    '',
    `Made by \`gqa convert\` from ${name}: ${METHODS[method]}; groups ${regroup ? 'by similarity' : 'of neighbours'}. All other weights are the original's.`,
    '',
    ...summaryLines(report).map((line) => `- ${line}`),
    '',
    '## Layers',
    '',
    ...markdownTable(layerTable(report)),
    '',
  ].join('\n');
}
