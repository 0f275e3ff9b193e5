/** bench:peers attention: decode and prefill of every contender over shapes, contexts and dtypes. */
import { CACHE_DTYPES, type CacheDType } from '../../lib/core/dtype';
import type { Command } from 'commander';
import { cross, machineRow } from '../../lib/cli/bench/sweep';
import type { Row } from '../../lib/cli/bench/report';
import {
  addReportOptions,
  listOption,
  printReport,
  type ReportOptions,
} from '../../lib/cli/commands/bench-options';
import { getBackend } from '../../lib/backend';
import { decimal, headShape, integer, oneOf, type HeadShape } from '../../lib/cli/options';
import { Status } from '../../lib/cli/terminal';
import { caseRows, COLUMNS, NOTES, PLOTS } from './attention-report';
import { race, type PeerCase, type Racer } from './attention-run';
import type { PeerOp } from './attention-task';
import { barOf, hasAmx } from './bars';
import { contenders, OURS } from './contenders';
import { BUSY_SHARE } from './other-load';
import { installPeers } from './folder';

interface Options extends ReportOptions {
  heads: HeadShape[];
  op: PeerOp[];
  context?: number[];
  dtype: CacheDType[];
  threads?: number[];
  seconds: number;
  only?: string[];
}

const ROUNDS = 5;
const DEFAULT_HEADS = '32/8/128,32/32/128,9/3/64,64/8/128,71/1/64';
const DEFAULT_CONTEXT: Readonly<Record<PeerOp, number>> = { decode: 4096, prefill: 2048 };

function casesOf({ heads, op, context, dtype, threads }: Options, all: number): PeerCase[] {
  return cross(op, heads, dtype).flatMap(([operation, shape, type]) =>
    // Nobody's prefill takes quantised tensors.
    operation === 'prefill' && (type === 'q8' || type === 'q4')
      ? []
      : cross(context ?? [DEFAULT_CONTEXT[operation]], threads ?? [all]).map(([tokens, count]) => ({
          ...{ op: operation, shape, context: tokens, dtype: type, threads: count },
        })),
  );
}

async function run(options: Options): Promise<void> {
  const status = new Status();
  const installed = installPeers();
  installed.missing.forEach((reason) => status.note(reason));
  const entries = contenders(installed).filter(
    ({ peer }) => peer === OURS || (options.only?.includes(peer) ?? true),
  );
  const racers: Racer[] = entries.map((entry) => ({ ...entry, contender: entry.start() }));
  const backend = getBackend();
  const amx = hasAmx();
  const rows: Row[] = [];
  try {
    const cases = casesOf(options, backend.info.threads);
    for (const [index, theCase] of cases.entries()) {
      const result = await race(theCase, racers, {
        reference: OURS,
        rounds: ROUNDS,
        seconds: options.seconds,
      });
      const found = caseRows(result, barOf(theCase, amx));
      rows.push(...found);
      const { op, heads, context, dtype, threads, ratio } = found[0];
      status.note(
        `[${index + 1}/${cases.length}] ${op} ${heads} at ${context}, ${dtype}, ${threads} thr: ` +
          (typeof found[0].others === 'number' && found[0].others > BUSY_SHARE
            ? 'busy machine, '
            : '') +
          (typeof ratio === 'number'
            ? `${ratio.toFixed(2)}x the best peer`
            : 'no peer to compare with'),
      );
    }
  } finally {
    await Promise.all(racers.map(({ contender }) => contender.stop()));
  }
  const machine = { ...machineRow(backend), amx: String(amx) };
  const report = {
    bench: 'peers-attention',
    machine,
    notes: NOTES,
    columns: COLUMNS,
    rows,
    plots: PLOTS,
  };
  await printReport(report, options);
}

export function addPeerAttention(program: Command): void {
  const command = program
    .command('attention', { isDefault: true })
    .description('Decode over a cache and causal prefill.')
    .addOption(
      listOption('--heads <list>', 'query heads / KV heads / head dim', headShape, DEFAULT_HEADS),
    )
    .addOption(
      listOption('--op <list>', 'decode, prefill', oneOf<PeerOp>('decode', 'prefill'), 'decode'),
    )
    .addOption(
      listOption(
        '--context <list>',
        'tokens (default: 4096 for decode, 2048 for prefill)',
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
      listOption(
        '--threads <list>',
        'threads of every contender (default: all)',
        integer({ min: 1 }),
      ),
    )
    .addOption(
      listOption(
        '--only <list>',
        'peers: pytorch, onnxruntime-node, node-llama-cpp',
        oneOf('pytorch', 'onnxruntime-node', 'node-llama-cpp'),
      ),
    )
    .option(
      '--seconds <s>',
      'timing of each contender in each case',
      decimal({ above: 0, max: 600 }),
      1,
    );
  addReportOptions(command).action(run);
}
