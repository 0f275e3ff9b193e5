/** A damage report as lines and tables for people. */
import { basename } from 'node:path';
import { grouped } from '../numbers';
import type { TableData } from '../table';
import type { DamageReport, TextUse } from './damage';

export function summaryLines(report: DamageReport): string[] {
  const { crossEntropy, perplexity, kl, topAgreement, scoredTokens, bytesPerToken } = report;
  const share = bytesPerToken.after / bytesPerToken.before;
  const lines = [
    `KV cache, f16: ${grouped(bytesPerToken.before)} bytes a token before, ${grouped(bytesPerToken.after)} after (${(100 * share).toFixed(1)} %)`,
  ];
  if (crossEntropy === null) {
    lines.push('no text was given: errors are of weights alone, nothing is known of predictions');
    return lines;
  }
  lines.push(
    `cross-entropy: ${crossEntropy.before.toFixed(4)} nats a token before, ${crossEntropy.after.toFixed(4)} after (perplexity ${perplexity!.before.toFixed(3)}, ${perplexity!.after.toFixed(3)})`,
    `KL divergence of the next token: ${kl!.toFixed(4)} nats; the same token likeliest for ${(100 * topAgreement!).toFixed(1)} %`,
    `text: ${useText(report.text!)}, ${grouped(scoredTokens!)} tokens predicted`,
  );
  if (report.calibration !== null) lines.push(`calibration: ${useText(report.calibration)}`);
  return lines;
}

function useText({ path, tokens, windows, window, cut }: TextUse): string {
  const rest = cut > 0 ? `, ${grouped(cut)} more were left out` : '';
  return `${basename(path)}, ${grouped(tokens)} tokens in ${windows} windows of ${window}${rest}`;
}

export function layerTable({ layers }: DamageReport): TableData {
  return {
    columns: [
      { key: 'layer', title: 'layer' },
      { key: 'before', title: 'KV heads' },
      { key: 'after', title: 'after' },
      { key: 'groups', title: 'groups' },
      { key: 'outputError', title: 'output error', style: 'percent', decimals: 1 },
      { key: 'keyError', title: 'key weights', style: 'percent', decimals: 1 },
      { key: 'valueError', title: 'value weights', style: 'percent', decimals: 1 },
    ],
    rows: layers.map(({ layer, kvHeads, groups, outputError, keyError, valueError }) => ({
      layer,
      before: kvHeads.before,
      after: kvHeads.after,
      groups: groups.map((group) => group.join('+')).join(' '),
      outputError,
      keyError,
      valueError,
    })),
  };
}
