/** bench:peers model: gqa against node-llama-cpp, end to end on the same GGUF file. */
import { basename } from 'node:path';
import type { Command } from 'commander';
import { getBackend } from '../../lib/backend';
import type { Column, Row } from '../../lib/cli/bench/report';
import { machineRow } from '../../lib/cli/bench/sweep';
import {
  addReportOptions,
  listOption,
  printReport,
  type ReportOptions,
} from '../../lib/cli/commands/bench-options';
import { integer, oneOf } from '../../lib/cli/options';
import { Status } from '../../lib/cli/terminal';
import { installPeers } from './folder';
import { modelBar } from './bars';
import { verdict } from './other-load';
import { FAST, MEASURES, raceModels, type Measure, type ModelRace } from './model-run';

interface Options extends ReportOptions {
  model?: string[];
  measure: Measure[];
  rounds: number;
  threads?: number;
}

const MEASURE_NAMES = Object.keys(MEASURES) as Measure[];

const COLUMNS: Column[] = [
  { key: 'model', title: 'model' },
  { key: 'measure', title: 'measure' },
  { key: 'threads', title: 'threads' },
  { key: 'contender', title: 'contender' },
  { key: 'medianMilliseconds', title: 'ms', decimals: 2 },
  { key: 'p10Milliseconds', title: 'p10', decimals: 2 },
  { key: 'p90Milliseconds', title: 'p90', decimals: 2 },
  { key: 'tokensPerSecond', title: 'tokens/s', decimals: 1 },
  { key: 'ratio', title: 'node-llama-cpp / gqa', decimals: 2 },
  { key: 'ratioP10', title: 'p10', decimals: 2 },
  { key: 'ratioP90', title: 'p90', decimals: 2 },
  { key: 'bar', title: 'bar', decimals: 2 },
  { key: 'met', title: 'met' },
  { key: 'others', title: 'others', style: 'percent' },
  { key: 'runs', title: 'runs' },
];

const NOTES = [
  'Medians over runs made in turn, each contender in a process of its own, 16-bit cache, flash attention on. Token after n:',
  'time between two generated tokens behind a prompt of n. Prompt of 512, first token of 3,900: time from the call to the',
  'first token. The ratio is that of runs made side by side; the bar is for precision fast. Others: share of the CPUs that',
  'went to processes which take no part; with more than 5 % there is no verdict, because node-llama-cpp waits by spinning.',
];

/** Tokens that a measure's time stands for. */
const TOKENS: Readonly<Record<Measure, number>> = {
  prompt: 512,
  generation: 1,
  longGeneration: 1,
  firstToken: 3900,
};

function rowsOf(
  model: string,
  threads: number,
  measures: Measure[],
  { results, others }: ModelRace,
): Row[] {
  return measures.flatMap((measure) =>
    results.map(({ contender, times, ratios }) => {
      const time = times[measure];
      const ratio = ratios[measure];
      const bar = contender === FAST ? modelBar(model, measure) : null;
      return {
        ...{ model, measure: MEASURES[measure], threads, contender },
        medianMilliseconds: time?.median ?? null,
        p10Milliseconds: time?.p10 ?? null,
        p90Milliseconds: time?.p90 ?? null,
        tokensPerSecond: time === undefined ? null : (TOKENS[measure] / time.median) * 1e3,
        ratio: ratio?.median ?? null,
        ratioP10: ratio?.p10 ?? null,
        ratioP90: ratio?.p90 ?? null,
        bar,
        met: bar === null || ratio === undefined ? null : verdict(ratio.median, bar, others),
        others,
        runs: time?.samples ?? 0,
      };
    }),
  );
}

async function run(options: Options, command: Command): Promise<void> {
  const paths = options.model ?? (process.env.GQA_PEER_MODELS ?? '').split(',').filter(Boolean);
  if (paths.length === 0) {
    command.error('error: expected --model <list> or GQA_PEER_MODELS, paths of .gguf files.');
  }
  const status = new Status();
  const { npm, missing } = installPeers({ torch: false });
  if (npm === null) throw new Error(missing.join('\n'));
  const backend = getBackend();
  const threads = options.threads ?? backend.info.threads;
  const rows: Row[] = [];
  for (const path of paths) {
    const name = basename(path);
    const { rounds, measure: measures } = options;
    const found = await raceModels({ path, npm, threads, rounds, measures }, (text) =>
      status.note(`${name}: ${text}`),
    );
    rows.push(...rowsOf(name, threads, measures, found));
  }
  const machine = machineRow(backend);
  const plots = [
    {
      title: 'node-llama-cpp / gqa',
      value: 'ratio',
      whisker: ['ratioP10', 'ratioP90'] as [string, string],
      panel: ['model'],
      label: ['measure', 'contender'],
      colour: 'contender',
      reference: 1,
    },
  ];
  const report = { bench: 'peers-model', machine, notes: NOTES, columns: COLUMNS, rows, plots };
  await printReport(report, options);
}

export function addPeerModel(program: Command): void {
  const command = program
    .command('model')
    .description('Prompts and generation on GGUF files, against node-llama-cpp.')
    .addOption(listOption('--model <list>', 'GGUF files (default: GQA_PEER_MODELS)', String))
    .addOption(
      listOption(
        '--measure <list>',
        MEASURE_NAMES.join(', '),
        oneOf(...MEASURE_NAMES),
        MEASURE_NAMES.join(','),
      ),
    )
    .option('--rounds <n>', 'runs of each', integer({ min: 1 }), 3)
    .option('--threads <n>', 'threads of every contender (default: all)', integer({ min: 1 }));
  addReportOptions(command).action(run);
}
