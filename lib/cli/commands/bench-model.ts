/** gqa bench model: prompt and generation tokens/s at a few context lengths. */
import { basename } from 'node:path';
import type { Command } from 'commander';
import { getBackend } from '../../backend';
import type { CacheDType } from '../../core/dtype';
import type { Precision } from '../../core/precision';
import { loadModel, type Model } from '../../model';
import { embeddedModel } from '../../model/embedded';
import { LimitProbe } from '../bench/limits';
import { measureModel, type ModelMeasurement, type ModelRun } from '../bench/model-cases';
import type { Column, Row } from '../bench/report';
import { cross, machineRow } from '../bench/sweep';
import { stoppable } from '../exit';
import { integer } from '../options';
import { Status } from '../terminal';
import {
  addCommonOptions,
  chosenThreads,
  listOption,
  precisionOf,
  printReport,
  type CommonOptions,
} from './bench-options';

interface ModelOptions extends Omit<CommonOptions<CacheDType>, 'dtype'> {
  dtype?: CacheDType[];
  model?: string;
  context?: number[];
  tokens: number;
  precision: Precision[];
}

const DTYPES: CacheDType[] = ['f32', 'f16', 'bf16', 'q8', 'q4'];
/** As loadModel has it. */
const DEFAULT_DTYPE: Readonly<Record<Precision, CacheDType>> = { exact: 'f32', fast: 'bf16' };
/** Those that fit the model are taken. */
const DEFAULT_CONTEXTS = [32, 256, 1024];

const COLUMNS: Column[] = [
  { key: 'model', title: 'model' },
  { key: 'dtype', title: 'cache' },
  { key: 'precision', title: 'precision' },
  { key: 'context', title: 'context' },
  { key: 'threads', title: 'threads' },
  { key: 'promptTokensPerSecond', title: 'prompt tokens/s', decimals: 1 },
  { key: 'promptP10' },
  { key: 'promptP90' },
  { key: 'generationTokensPerSecond', title: 'generation tokens/s', decimals: 1 },
  { key: 'generationP10' },
  { key: 'generationP90' },
  { key: 'runs', title: 'runs' },
  { key: 'generationOfReadLimit', title: 'of read limit', style: 'percent' },
  { key: 'readLimitGigabytesPerSecond', title: 'read limit', decimals: 1 },
];

const PLOTS = (['prompt', 'generation'] as const).map((part) => ({
  title: `Tokens a second, ${part}`,
  value: `${part}TokensPerSecond`,
  whisker: [`${part}P10`, `${part}P90`] as [string, string],
  panel: ['model', 'threads'],
  label: ['dtype', 'precision', 'context'],
  colour: 'dtype',
}));

const NOTES = [
  'Medians over runs. Context: tokens of the prompt, and in the cache when generation begins. Of read limit: the time to',
  'read weights and cache once at the bandwidth (GB/s) measured between the runs, as a share of the time of a token.',
];

function measuredRow(measured: ModelMeasurement): Row {
  const { promptTokensPerSecond: prompt, generationTokensPerSecond: generation } = measured;
  return {
    promptTokensPerSecond: prompt.median,
    promptP10: prompt.p10,
    promptP90: prompt.p90,
    generationTokensPerSecond: generation?.median ?? null,
    generationP10: generation?.p10 ?? null,
    generationP90: generation?.p90 ?? null,
    runs: prompt.samples,
    generationOfReadLimit: measured.generationOfReadLimit,
    readLimitGigabytesPerSecond: measured.readLimit / 1e9,
  };
}

function contextsFor(model: Model, { context, tokens }: ModelOptions): number[] {
  return context ?? DEFAULT_CONTEXTS.filter((length) => length + tokens <= model.contextLength);
}

interface Loaded {
  model: Model;
  name: string;
  dtype: CacheDType;
  precision: Precision;
}

interface Surroundings {
  threads: number[];
  probe: LimitProbe;
  status: Status;
  signal: AbortSignal;
}

/** All contexts and thread counts of one loaded model, a row each as it is done. */
async function* benchLoaded(
  { model, name, dtype, precision }: Loaded,
  options: ModelOptions,
  { threads, probe, status, signal }: Surroundings,
): AsyncGenerator<Row, undefined> {
  const { tokens, seconds } = options;
  for (const [context, count] of cross(contextsFor(model, options), threads)) {
    const label = `${name} ${precision} at ${context}, ${dtype} cache, ${count} thr`;
    status.update(label);
    getBackend().limitThreads(count);
    const run: ModelRun = { model, dtype, context, tokens, seconds };
    const measured = await measureModel(run, probe, signal);
    const speeds = [measured.promptTokensPerSecond, measured.generationTokensPerSecond];
    const [prompt, generation] = speeds.map((speed) => speed?.median.toFixed(0) ?? 'no');
    status.note(`${label}: prompt ${prompt}, generation ${generation} tokens/s`);
    yield { model: name, dtype, precision, context, threads: count, ...measuredRow(measured) };
  }
}

/** Rows of what was done; an abort leaves out the rest. */
async function benchAll(options: ModelOptions, surroundings: Surroundings): Promise<Row[]> {
  const { status, signal } = surroundings;
  const path = options.model ?? embeddedModel.path;
  const name = options.model === undefined ? embeddedModel.name : basename(options.model);
  const rows: Row[] = [];
  const choices = options.precision.flatMap((precision) =>
    cross(options.dtype ?? [DEFAULT_DTYPE[precision]], [precision]),
  );
  for (const [dtype, precision] of choices) {
    status.update(`loading ${name}`);
    const model = await loadModel(path, { precision, kvCache: { dtype } });
    try {
      for await (const row of benchLoaded(
        { model, name, dtype, precision },
        options,
        surroundings,
      )) {
        rows.push(row);
      }
    } catch (error) {
      if (!signal.aborted) throw error;
      break;
    } finally {
      await model.dispose();
    }
  }
  return rows;
}

async function run(options: ModelOptions, command: Command): Promise<void> {
  const backend = getBackend();
  const threads = chosenThreads(command, options.threads, backend.info.threads);
  const status = new Status();
  await stoppable(async (signal) => {
    const probe = new LimitProbe(backend);
    const rows = await benchAll(options, { threads, probe, status, signal });
    status.clear();
    const machine = machineRow(backend);
    const report = { bench: 'model', machine, notes: NOTES, columns: COLUMNS, rows, plots: PLOTS };
    await printReport(report, options);
  });
}

export function addBenchModel(bench: Command): void {
  const command = bench
    .command('model')
    .summary('prompt and generation tokens/s')
    .description('Time a model: tokens a second of prompts and of generation.')
    .option('-m, --model <path>', 'Hugging Face folder or .gguf file (default: the embedded model)')
    .addOption(
      listOption(
        '--context <list>',
        `prompt tokens (default: those of ${DEFAULT_CONTEXTS.join(',')} that fit)`,
        integer({ min: 1 }),
      ),
    )
    .option('--tokens <n>', 'tokens generated in each run', integer({ min: 8 }), 32)
    .addOption(
      listOption(
        '--precision <list>',
        'exact, fast: whether activations may be rounded',
        precisionOf,
        'exact,fast',
      ),
    );
  addCommonOptions(command, {
    meaning: 'storage of the KV cache (default: f32, with precision fast bf16)',
    choices: DTYPES,
    defaults: null,
  }).action(run);
}
