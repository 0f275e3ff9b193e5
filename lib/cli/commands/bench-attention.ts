/** gqa bench attention: decode over a cache and causal prefill, over shapes, contexts, dtypes and threads. */
import { CACHE_DTYPES, type CacheDType } from '../../core/dtype';
import type { Command } from 'commander';
import { getBackend } from '../../backend';
import type { BackendInfo } from '../../backend/contract';
import type { Precision } from '../../core/precision';
import { attentionSubject, describeCase, OPS, type Op } from '../bench/attention-cases';
import type { Column } from '../bench/report';
import { isQuantised } from '../bench/roofline';
import {
  cross,
  machineRow,
  MEASURED_COLUMNS,
  MEASURED_NOTES,
  rooflinePlot,
  runSweep,
  type SweepCase,
} from '../bench/sweep';
import { stoppable } from '../exit';
import { formatHeads, headShape, integer, oneOf, type HeadShape } from '../options';
import { Status } from '../terminal';
import {
  addCommonOptions,
  chosenThreads,
  listOption,
  precisionOf,
  printReport,
  type CommonOptions,
} from './bench-options';

interface AttentionOptions extends CommonOptions<CacheDType> {
  heads: HeadShape[];
  context?: number[];
  op: Op[];
  precision: Precision[];
}

/** Llama-3-8B, SmolLM2-135M, Falcon-7B: a power-of-two group, an odd one, one KV head for all. */
const DEFAULT_HEADS = '32/8/128,9/3/64,71/1/64';
const DEFAULT_CONTEXT: Readonly<Record<Op, number[]>> = {
  decode: [512, 4096],
  prefill: [2048],
  'prefill-cache': [2048],
};
/** JavaScript alone takes minutes for a prefill of 2,048 tokens. */
const DEFAULT_PREFILL_JS = [128];

const COLUMNS: Column[] = [
  { key: 'op', title: 'op' },
  { key: 'heads', title: 'heads' },
  { key: 'context', title: 'context' },
  { key: 'dtype', title: 'dtype' },
  { key: 'precision', title: 'precision' },
  ...MEASURED_COLUMNS,
];

const NOTES = [
  'Heads: query heads / KV heads / head dim. Decode: one token over a KvCache of the dtype, f32 queries and results,',
  'through layers enough that none is in a cache. Prefill: causal over as many queries as keys; FLOP of visible pairs.',
  ...MEASURED_NOTES,
];

/** Only a cache holds quantised keys and values. */
function dtypesOf(op: Op, dtypes: CacheDType[]): CacheDType[] {
  return op === 'prefill' ? dtypes.filter((dtype) => !isQuantised(dtype)) : dtypes;
}

export function attentionSweep(
  { heads, context, dtype, op, precision }: AttentionOptions,
  threadCounts: number[],
  kind: BackendInfo['kind'],
): SweepCase[] {
  const contextsOf = (operation: Op) => {
    if (context !== undefined) return context;
    return kind === 'js' && operation !== 'decode'
      ? DEFAULT_PREFILL_JS
      : DEFAULT_CONTEXT[operation];
  };
  return cross(op, heads).flatMap(([operation, shape]) =>
    cross(contextsOf(operation), dtypesOf(operation, dtype), precision, threadCounts).map(
      (combination) => {
        const [tokens, type, exactness, threads] = combination;
        const theCase = {
          ...{ op: operation, shape, context: tokens, dtype: type, precision: exactness },
        };
        return {
          name: describeCase(theCase),
          threads,
          labels: {
            ...{ op: operation, heads: formatHeads(shape), context: tokens, dtype: type },
            precision: exactness,
          },
          prepare: () => attentionSubject(theCase),
        };
      },
    ),
  );
}

async function run(options: AttentionOptions, command: Command): Promise<void> {
  // The default subcommand gets whatever is not the name of another.
  if (command.args.length > 0) {
    const [name] = command.args;
    command.error(`error: unknown benchmark '${name}'. Expected attention, linear or model.`);
  }
  const backend = getBackend();
  const threads = chosenThreads(command, options.threads, backend.info.threads);
  const cases = attentionSweep(options, threads, backend.info.kind);
  const status = new Status();
  await stoppable(async (signal) => {
    const rows = await runSweep(cases, { backend, seconds: options.seconds, status, signal });
    status.clear();
    const machine = machineRow(backend);
    const plots = [rooflinePlot(['op', 'context', 'threads'], ['heads', 'dtype', 'precision'])];
    const report = { bench: 'attention', machine, notes: NOTES, columns: COLUMNS, rows, plots };
    await printReport(report, options);
  });
}

export function addBenchAttention(bench: Command): void {
  const command = bench
    .command('attention', { isDefault: true })
    .summary('decode over a KV cache, and prefill (default)')
    .description('Time one-token attention over a KV cache, and causal prefill.')
    .allowExcessArguments()
    .addOption(
      listOption('--heads <list>', 'query heads / KV heads / head dim', headShape, DEFAULT_HEADS),
    )
    .addOption(
      listOption(
        '--context <list>',
        'tokens attended over (default: 512,4096 for decode, 2048 for prefill)',
        integer({ min: 1 }),
      ),
    )
    .addOption(listOption('--op <list>', OPS.join(', '), oneOf(...OPS), 'decode,prefill'))
    .addOption(
      listOption(
        '--precision <list>',
        'exact, fast: whether queries and weights may be rounded',
        precisionOf,
        'exact',
      ),
    );
  addCommonOptions(command, {
    meaning: 'storage of keys and values',
    choices: CACHE_DTYPES,
  }).action(run);
}
