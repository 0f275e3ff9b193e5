/** What a finished run tells: its result, the files beside the model, and a page with the loss curve. */
import { existsSync } from 'node:fs';
import { basename, join } from 'node:path';
import { readTextFile } from '../../format/file';
import type { CheckpointSource } from '../../model/checkpoint-io/types';
import { lineChart, page, table } from '../html';
import type { Preparation } from './preparation';
import type { Settings, UptrainOptions } from './settings';
import type { Evaluation, Progress } from './state';
import type { StepLoss } from './trainer';

export interface UptrainResult {
  /** Names, not paths. */
  model: string;
  text: string;
  teacher: string | null;
  evalText: string | null;
  settings: Settings;
  /** Seen by the model: steps x batch x window. */
  tokens: number;
  /** Of these, tokens of the text, which is seen again where it has fewer. */
  textTokens: number;
  /** On the held-back text, in nats a token; null without one. */
  crossEntropy: { before: number; after: number } | null;
  evaluations: readonly Evaluation[];
  /** Of each step, on the text trained on. */
  losses: readonly StepLoss[];
  seconds: number;
  tokensPerSecond: number;
}

export function summaryOf(
  options: UptrainOptions,
  { settings, corpus }: Preparation,
  { losses, evaluations, seconds }: Progress,
): UptrainResult {
  const tokens = settings.steps * settings.batch * settings.window;
  const nameOf = (path: string | undefined): string | null =>
    path === undefined ? null : basename(path);
  const [first, last] = [evaluations[0], evaluations.at(-1)];
  return {
    model: basename(options.model),
    text: basename(options.text),
    teacher: nameOf(options.teacher),
    evalText: nameOf(options.evalText),
    settings,
    tokens,
    textTokens: corpus.tokens,
    crossEntropy:
      last === undefined ? null : { before: first.crossEntropy, after: last.crossEntropy },
    evaluations,
    losses,
    seconds,
    tokensPerSecond: tokens / seconds,
  };
}

const CARD = 'README.md';
const REPORT = 'gqa_uptrain.json';
const MAX_CARD_BYTES = 2 ** 20;

/** Written beside a model: its card, what was there before first, and the result. */
export function modelFiles(
  source: CheckpointSource,
  result: UptrainResult,
): Record<string, string> {
  const card = join(source.path, CARD);
  const before =
    source.form === 'folder' && existsSync(card)
      ? `${readTextFile(card, MAX_CARD_BYTES).trimEnd()}\n\n`
      : '';
  return {
    [CARD]: before + cardOf(result),
    [REPORT]: `${JSON.stringify(result, null, 1)}\n`,
  };
}

function cardOf(result: UptrainResult): string {
  const { model, text, teacher, settings, tokens, losses, crossEntropy } = result;
  const { train, learningRate, batch, window, steps, seed, teacherShare } = settings;
  const taught =
    teacher === null ? '' : `, ${teacherShare} of the loss the divergence from ${teacher}`;
  const lines = [
    '## Uptraining',
    '',
    `${model}, trained on with \`gqa uptrain\`: ${tokens} tokens of ${text} in ${steps} steps of ${batch} windows of ${window}; AdamW, ` +
      `learning rate ${learningRate} with warm-up and cosine${taught}; trained: ${train}; seed ${seed}.`,
    '',
    `Cross-entropy on the text trained on, nats a token: ${losses[0].crossEntropy.toFixed(4)} in the first step, ${losses.at(-1)!.crossEntropy.toFixed(4)} in the last.`,
  ];
  if (crossEntropy !== null) {
    const { before, after } = crossEntropy;
    lines.push(
      `On held-back text (${result.evalText}): ${before.toFixed(4)} before, ${after.toFixed(4)} after.`,
    );
  }
  return `${lines.join('\n')}\n`;
}

/** A page of HTML that needs no network. */
export function uptrainPage(result: UptrainResult): string {
  const { model, text, teacher, evaluations, losses, settings } = result;
  const named = (name: string, points: [number, number][]) => ({ name, points });
  const curve = (key: keyof StepLoss): [number, number][] =>
    losses.map((loss, i) => [i + 1, loss[key]]);
  const series = [named(`cross-entropy on ${text}`, curve('crossEntropy'))];
  if (teacher !== null) series.push(named(`KL from ${teacher}`, curve('kl')));
  if (evaluations.length > 0) {
    const points = evaluations.map(({ step, crossEntropy }): [number, number] => [step, crossEntropy]); // prettier-ignore
    series.push(named(`cross-entropy on ${result.evalText}`, points));
  }
  const rows = Object.entries({
    tokens: result.tokens,
    'tokens/s': Math.round(result.tokensPerSecond),
    ...settings,
  }).map(([setting, value]) => ({ setting, value }));
  const chart = lineChart({
    title: 'Loss',
    x: { label: 'step', integer: true },
    y: { label: 'nats a token' },
    series,
  });
  const columns = [
    { key: 'setting', title: '' },
    { key: 'value', title: 'value' },
  ];
  return page(`Uptraining of ${model}`, [{ content: [chart, table({ columns, rows })] }]);
}
