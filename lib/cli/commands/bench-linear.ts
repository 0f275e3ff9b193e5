/** gqa bench linear: the product of activations with packed weights, over shapes, token counts, dtypes and threads. */
import type { Command } from 'commander';
import { getBackend } from '../../backend';
import type { Backend } from '../../backend/contract';
import { describeLinear, linearSubject } from '../bench/linear-cases';
import type { Column } from '../bench/report';
import {
  cross,
  machineRow,
  MEASURED_COLUMNS,
  MEASURED_NOTES,
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
  printReport,
  type CommonOptions,
} from './bench-options';

interface LinearOptions extends CommonOptions {
  shape: MatrixShape[];
  tokens: number[];
}

/** Query and gate projections of SmolLM2-135M and of Llama-3-8B. */
const DEFAULT_SHAPES = '576x576,1536x576,4096x4096,14336x4096';
const DEFAULT_TOKENS = '1,128';

const COLUMNS: Column[] = [
  { key: 'shape', title: 'out x in' },
  { key: 'tokens', title: 'tokens' },
  { key: 'dtype', title: 'dtype' },
  ...MEASURED_COLUMNS,
];

const NOTES = [
  'y = x W^T with f32 x, W packed from the dtype. One token goes through copies of W enough that none is in a cache.',
  ...MEASURED_NOTES,
];

function linearSweep(
  { shape, tokens, dtype }: LinearOptions,
  threadCounts: number[],
  backend: Backend,
): SweepCase[] {
  return cross(shape, tokens, dtype, threadCounts).map(([matrix, count, type, threads]) => {
    const theCase = { shape: matrix, tokens: count, dtype: type };
    return {
      name: describeLinear(theCase),
      threads,
      labels: { shape: formatMatrix(matrix), tokens: count, dtype: type },
      prepare: () => linearSubject(backend, theCase),
    };
  });
}

async function run(options: LinearOptions, command: Command): Promise<void> {
  const backend = getBackend();
  const threads = chosenThreads(command, options.threads, backend.info.threads);
  const cases = linearSweep(options, threads, backend);
  const status = new Status();
  await stoppable(async (signal) => {
    const rows = await runSweep(cases, { backend, seconds: options.seconds, status, signal });
    status.clear();
    const machine = machineRow(backend);
    await printReport({ bench: 'linear', machine, notes: NOTES, columns: COLUMNS, rows }, options);
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
    .addOption(listOption('--tokens <list>', 'rows of x', integer({ min: 1 }), DEFAULT_TOKENS));
  addCommonOptions(command, 'dtype that the weights come in').action(run);
}
