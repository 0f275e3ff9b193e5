/**
 * npm run bench:compare -- BASE [HEAD] [options]
 *
 * Builds two commits and times them in turn in one run: what counts are quotients of times taken side by side, because
 * a machine's speed changes from minute to minute. Exits with 1 where head is slower beyond the threshold, or broken.
 */
import { CACHE_DTYPES, type CacheDType } from '../../lib/core/dtype';
import { homedir } from 'node:os';
import { join } from 'node:path';
import { Command } from 'commander';
import { getBackend } from '../../lib/backend';
import type { Column, Plot, Row } from '../../lib/cli/bench/report';
import { cross, machineRow } from '../../lib/cli/bench/sweep';
import {
  addReportOptions,
  listOption,
  printReport,
  type ReportOptions,
} from '../../lib/cli/commands/bench-options';
import { decimal, headShape, integer, oneOf, type HeadShape } from '../../lib/cli/options';
import { Status } from '../../lib/cli/terminal';
import type { PeerCase } from '../peers/attention-run';
import type { PeerOp } from '../peers/attention-task';
import { compareAttention } from './attention';
import { builtCommit, resolveCommit } from './build';
import { compareModel } from './model';
import type { GateOptions } from './sides';

interface Options extends ReportOptions, GateOptions {
  heads: HeadShape[];
  op: PeerOp[];
  context?: number[];
  dtype: CacheDType[];
  threads?: number[];
  model?: string | false;
}

const EXIT_SLOWER = 1;
const DEFAULT_CONTEXT: Readonly<Record<PeerOp, number[]>> = {
  decode: [512, 4096],
  prefill: [1024],
};

const COLUMNS: Column[] = [
  { key: 'measure', title: 'measure' },
  { key: 'threads', title: 'threads' },
  { key: 'baseMicroseconds', title: 'base µs', decimals: 1 },
  { key: 'headMicroseconds', title: 'head µs', decimals: 1 },
  { key: 'ratio', title: 'base / head', decimals: 3 },
  { key: 'low', title: 'from', decimals: 3 },
  { key: 'high', title: 'to', decimals: 3 },
  { key: 'verdict', title: 'verdict' },
  { key: 'failure', title: 'failure' },
];

const NOTES = [
  'Base / head: median of the quotients of times taken side by side, above 1 where head is faster, and where that median',
  'lies with 95 % confidence. Slower, faster: beyond the threshold, with an interval that leaves out 1; what was slower',
  'was measured twice.',
];

const PLOTS: Plot[] = [
  {
    ...{ title: 'Base / head', value: 'ratio', whisker: ['low', 'high'], reference: 1 },
    ...{ panel: ['threads'], label: ['measure'], colour: 'verdict' },
  },
];

function casesOf({ heads, op, context, dtype, threads }: Options, all: number): PeerCase[] {
  return cross(op, heads, dtype).flatMap(([operation, shape, type]) =>
    operation === 'prefill' && (type === 'q8' || type === 'q4')
      ? []
      : cross(context ?? DEFAULT_CONTEXT[operation], threads ?? [all]).map(([tokens, count]) => ({
          ...{ op: operation, shape, context: tokens, dtype: type, threads: count },
        })),
  );
}

function buildsFolder(): string {
  return join(process.env.XDG_CACHE_HOME ?? join(homedir(), '.cache'), 'gqa-compare');
}

async function run(baseName: string, headName: string, options: Options): Promise<void> {
  const status = new Status();
  const note = (text: string) => status.note(text);
  const [baseCommit, headCommit] = [baseName, headName].map(resolveCommit);
  const builds = {
    base: builtCommit(baseCommit, buildsFolder(), note),
    head: builtCommit(headCommit, buildsFolder(), note),
  };
  const backend = getBackend();
  const all = backend.info.threads;
  const rows: Row[] = await compareAttention(casesOf(options, all), builds, options, note);
  if (options.model !== false) {
    const path = options.model ?? join(builds.head, 'models', 'stories');
    rows.push(...(await compareModel(path, all, builds, options)));
  }
  const { cpu, cpus, node } = machineRow(backend);
  const machine = { base: baseCommit, head: headCommit, cpu, cpus, node };
  const report = { bench: 'compare', machine, notes: NOTES, columns: COLUMNS, rows, plots: PLOTS };
  await printReport(report, options);
  const failed = rows.filter(({ verdict }) => verdict === 'slower' || verdict === 'broken');
  if (failed.length > 0) {
    note(`${failed.length} of ${rows.length} slower or broken`);
    process.exitCode = EXIT_SLOWER;
  }
}

const program = new Command('bench:compare')
  .description('Time two commits in turn; exits with 1 where the second is slower.')
  .argument('<base>', 'commit that is the measure')
  .argument('[head]', 'commit that must not be slower', 'HEAD')
  .option('--threshold <share>', 'how much slower fails', decimal({ above: 0, max: 10 }), 0.05)
  .option('--rounds <n>', 'runs of each, in turn', integer({ min: 6 }), 15)
  .option('--seconds <s>', 'timing of each side of a case', decimal({ above: 0, max: 600 }), 0.6)
  .addOption(
    listOption('--heads <list>', 'query heads / KV heads / head dim', headShape, '32/8/128,9/3/64'),
  )
  .addOption(
    listOption(
      '--op <list>',
      'decode, prefill',
      oneOf<PeerOp>('decode', 'prefill'),
      'decode,prefill',
    ),
  )
  .addOption(
    listOption(
      '--context <list>',
      'tokens (default: 512,4096 for decode, 1024 for prefill)',
      integer({ min: 1 }),
    ),
  )
  .addOption(
    listOption(
      '--dtype <list>',
      'what K and V are held in',
      oneOf(...CACHE_DTYPES),
      CACHE_DTYPES.join(','),
    ),
  )
  .addOption(
    listOption('--threads <list>', 'threads of a call (default: all)', integer({ min: 1 })),
  )
  .option('--model <path>', 'model to time (default: the embedded one)')
  .option('--no-model', 'attention alone')
  .addHelpText(
    'after',
    `
Examples:
  npm run bench:compare -- main
  npm run bench:compare -- HEAD~1 HEAD --op decode --dtype f32 --no-model`,
  );
addReportOptions(program).action(run);
program.parseAsync().catch((error: unknown) => {
  console.error(error instanceof Error ? error.message : error);
  process.exitCode = 2;
});
