/** gqa bench linear: the product of activations with packed weights, over shapes, token counts, dtypes and threads. */
import type { Command } from 'commander';
import { getBackend } from '../../backend';
import type { Backend } from '../../backend/contract';
import type { Precision } from '../../core/precision';
import { BLOCK_VALUES, isBlockDType, type WeightDType } from '../../core/dtype';
import { describeLinear, linearSubject } from '../bench/linear-cases';
import type { Column } from '../bench/report';
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
import { formatMatrix, integer, matrixShape, type MatrixShape } from '../options';
import { Status } from '../terminal';
import {
  addCommonOptions,
  chosenThreads,
  listOption,
  precisionOf,
  printReport,
  type CommonOptions,
} from './bench-options';

interface LinearOptions extends CommonOptions<WeightDType> {
  shape: MatrixShape[];
  tokens?: number[];
  precision: Precision[];
}

const DTYPES: WeightDType[] = ['f32', 'f16', 'bf16', 'q8_0', 'q4_0', 'q4_1'];
/** Their activations are never rounded. */
const EXACT_ONLY: WeightDType[] = ['f32', 'f16'];
/** Query and gate projections of SmolLM2-135M, query projection of Llama-3-8B. */
const DEFAULT_SHAPES = '576x576,1536x576,4096x4096';
/** JavaScript alone takes a minute for 512 rows. */
const DEFAULT_TOKENS = { native: [1, 512], js: [1, 16] } as const;

const COLUMNS: Column[] = [
  { key: 'shape', title: 'out x in' },
  { key: 'tokens', title: 'tokens' },
  { key: 'dtype', title: 'dtype' },
  { key: 'precision', title: 'precision' },
  ...MEASURED_COLUMNS,
];

const NOTES = [
  'y = x W^T with f32 x, W packed from the dtype. One token goes through copies of W enough that none is in a cache.',
  'Precision fast: x may be rounded to bf16 or, for q8_0, q4_0 and q4_1, to 8 bits.',
  ...MEASURED_NOTES,
];

function linearSweep(
  { shape, tokens, dtype, precision }: LinearOptions,
  threadCounts: number[],
  command: Command,
  backend: Backend,
): SweepCase[] {
  const counts = tokens ?? [...DEFAULT_TOKENS[backend.info.kind]];
  const odd = shape.find(({ columns }) => columns % BLOCK_VALUES !== 0);
  if (odd !== undefined && dtype.some(isBlockDType)) {
    command.error(
      `error: option '--shape <list>' argument '${formatMatrix(odd)}' is invalid. ` +
        `Expected input features in blocks of ${BLOCK_VALUES} for q8_0, q4_0 and q4_1.`,
    );
  }
  return cross(shape, counts, dtype, precision, threadCounts)
    .filter(([, , type, exactness]) => exactness === 'exact' || !EXACT_ONLY.includes(type))
    .map(([matrix, count, type, exactness, threads]) => {
      const theCase = { shape: matrix, tokens: count, dtype: type, precision: exactness };
      return {
        name: describeLinear(theCase),
        threads,
        labels: { ...theCase, shape: formatMatrix(matrix) },
        prepare: () => linearSubject(backend, theCase),
      };
    });
}

async function run(options: LinearOptions, command: Command): Promise<void> {
  const backend = getBackend();
  const threads = chosenThreads(command, options.threads, backend.info.threads);
  const cases = linearSweep(options, threads, command, backend);
  const status = new Status();
  await stoppable(async (signal) => {
    const rows = await runSweep(cases, { backend, seconds: options.seconds, status, signal });
    status.clear();
    const machine = machineRow(backend);
    const plots = [rooflinePlot(['shape', 'tokens', 'threads'], ['dtype', 'precision'])];
    const report = { bench: 'linear', machine, notes: NOTES, columns: COLUMNS, rows, plots };
    await printReport(report, options);
  });
}

export function addBenchLinear(bench: Command): void {
  const command = bench
    .command('linear')
    .summary('products of activations and weights')
    .description('Time y = x W^T for the shapes of linear layers.')
    .addOption(
      listOption('--shape <list>', 'output features x input features', matrixShape, DEFAULT_SHAPES),
    )
    .addOption(listOption('--tokens <list>', 'rows of x (default: 1,512)', integer({ min: 1 })))
    .addOption(
      listOption(
        '--precision <list>',
        'exact, fast: whether x may be rounded',
        precisionOf,
        'exact,fast',
      ),
    );
  addCommonOptions(command, { meaning: 'what the weights come in', choices: DTYPES }).action(run);
}
