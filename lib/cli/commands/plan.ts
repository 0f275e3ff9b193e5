/** gqa plan: what a model's weights and KV cache take, what fits here, and what other groups would change. */
import { writeFileSync } from 'node:fs';
import { InvalidArgumentError, type Command } from 'commander';
import { getBackend } from '../../backend';
import { GqaError } from '../../core/errors';
import type { WeightDType } from '../../core/dtype';
import { readJsonFile } from '../../format/file';
import {
  explain,
  plan,
  PRESETS,
  TOPICS,
  WEIGHT_DTYPES,
  type Explanation,
} from '../../toolkit/plan';
import { ReadProbe } from '../../toolkit/read-probe';
import { cacheDTypes, collect, decimal, integer, oneOf, type CacheDTypes } from '../options';
import { explanationText, planPage, planText } from '../plan-report';
import { print, Status } from '../terminal';
import { listOption } from './bench-options';

const HELP = `
The model is a preset, a config.json, a Hugging Face folder or a .gguf file; no
weights are read. Presets:
${columnsOf(PRESETS)}
Topics of --explain: ${TOPICS.join(', ')}.

Examples:
  gqa plan llama-3.1-8b --context 8192 --batch 16 --dtype f16,q8,q8/q4
  gqa plan ./my-model --memory 16GiB --weights q4_0 --shared-prefix 1000
  gqa plan llama-2-7b --kv-heads 8 --html plan.html
  gqa plan ./original --report damage-2.json --report damage-3.json
  gqa plan --explain 70b`;

const MAX_REPORT_BYTES = 2 ** 26;

interface Options {
  context?: number[];
  batch?: number;
  dtype?: CacheDTypes[];
  memory?: number;
  bandwidth?: number;
  weights?: WeightDType;
  sharedPrefix?: number;
  kvHeads?: number;
  report?: string[];
  explain?: string | true;
  html?: string;
  json?: boolean;
}

function columnsOf(names: readonly string[]): string {
  const lines: string[] = [];
  for (let i = 0; i < names.length; i += 5) lines.push(`  ${names.slice(i, i + 5).join(', ')}`);
  return `${lines.join(',\n')}.`;
}

const SIZE_UNITS: Readonly<Record<string, number>> = {
  '': 1,
  ...{ K: 2 ** 10, M: 2 ** 20, G: 2 ** 30, T: 2 ** 40 },
  ...{ KIB: 2 ** 10, MIB: 2 ** 20, GIB: 2 ** 30, TIB: 2 ** 40 },
  ...{ KB: 1e3, MB: 1e6, GB: 1e9, TB: 1e12 },
};

/** 16GiB, 16G (the same), 16GB, 17179869184 */
export function byteSize(text: string): number {
  const match = /^(\d+(?:\.\d+)?) ?([a-z]*)$/i.exec(text.trim());
  const unit = SIZE_UNITS[match?.[2].toUpperCase() ?? '?'] as number | undefined;
  const bytes = match === null || unit === undefined ? 0 : Math.floor(Number(match[1]) * unit);
  if (bytes > 0 && Number.isSafeInteger(bytes)) return bytes;
  throw new InvalidArgumentError('Expected a size above 0, such as 16GiB, 16GB or 17179869184.');
}

function measuredBandwidth(): number {
  const status = new Status();
  status.update('measuring how fast memory can be read');
  try {
    return new ReadProbe(getBackend()).measure();
  } finally {
    status.clear();
  }
}

function explanationsOf(topic: string | true | undefined): Explanation[] {
  if (topic === undefined) return [];
  return (topic === true ? TOPICS : [topic]).map(explain);
}

function writePage(path: string, text: string): void {
  try {
    writeFileSync(path, text);
  } catch (error) {
    const { message } = error as Error;
    throw new GqaError('WRITE_FAILED', `Cannot write ${path}: ${message}`, {
      argument: '--html',
      expected: 'a file that can be written',
      received: path,
      cause: error,
    });
  }
}

async function run(model: string | undefined, options: Options, command: Command): Promise<void> {
  const explanations = explanationsOf(options.explain);
  if (model === undefined) {
    if (explanations.length === 0) {
      command.error(
        `error: missing argument 'model'. Expected a path or one of ${PRESETS.join(', ')}.`,
      );
    }
    const text = explanations.map(explanationText).join('\n');
    await print(options.json ? `${JSON.stringify({ explanations }, null, 2)}\n` : text);
    return;
  }
  const { context, batch, dtype, memory, weights, sharedPrefix, kvHeads } = options;
  const reports = options.report?.map((path) => readJsonFile(path, MAX_REPORT_BYTES));
  const settings = {
    model,
    context,
    batch,
    dtype,
    memory,
    weights,
    sharedPrefix,
    kvHeads,
    reports,
  };
  // What is wrong is told before time is spent on measuring.
  if (options.bandwidth === undefined)
    plan({ ...settings, dtype: dtype?.[0], context: context?.[0] });
  const bandwidth = options.bandwidth === undefined ? measuredBandwidth() : options.bandwidth * 1e9;
  const planned = plan({ ...settings, bandwidth });
  if (options.html !== undefined) writePage(options.html, planPage(planned, explanations));
  const told = explanations.length === 0 ? {} : { explanations };
  const text = [planText(planned), ...explanations.map(explanationText)].join('\n');
  await print(options.json ? `${JSON.stringify({ ...planned, ...told }, null, 2)}\n` : text);
}

export function addPlan(program: Command): void {
  program
    .command('plan')
    .summary('what a model and its KV cache take')
    .description(
      'Plan memory and decode speed of a model: parameters, KV cache, what fits, the choice of KV heads.',
    )
    .argument('[model]', 'a preset, config.json, Hugging Face folder or .gguf file')
    .addOption(
      listOption(
        '--context <list>',
        'tokens of each sequence (default: 4096, or what the model was made for)',
        integer({ min: 1 }),
      ),
    )
    .option('--batch <n>', 'sequences at once (1)', integer({ min: 1 }))
    .addOption(
      listOption(
        '--dtype <list>',
        'how keys and values are stored: f32, f16, bf16, q8, q4, or K/V such as q8/q4 (all)',
        cacheDTypes,
      ),
    )
    .option(
      '--weights <dtype>',
      `how weights are stored: ${WEIGHT_DTYPES.join(', ')} (as in the checkpoint, else bf16)`,
      oneOf(...WEIGHT_DTYPES),
    )
    .option(
      '--memory <size>',
      'for weights and cache, such as 16GiB (what is available here)',
      byteSize,
    )
    .option(
      '--bandwidth <gb/s>',
      'of reading memory, in 1e9 bytes a second (measured here)',
      decimal({ above: 0, max: 1e6 }),
    )
    .option(
      '--shared-prefix <n>',
      'first tokens that all sequences have in common (0)',
      integer({ min: 0 }),
    )
    .option('--kv-heads <n>', 'as if every layer had so many', integer({ min: 1 }))
    .option('--report <file>', 'damage report of gqa convert; repeatable', collect)
    .option('--explain [topic]', 'popular figures that are wrong, step by step', oneOf(...TOPICS))
    .option('--html <file>', 'writes a page with tables and charts there too')
    .option('--json', 'print one JSON document')
    .addHelpText('after', HELP)
    .action(run);
}
