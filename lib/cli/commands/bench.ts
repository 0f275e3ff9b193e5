/** gqa bench: times attention, linear layers or a model, against what this machine can do. */
import type { Command } from 'commander';
import { addBenchAttention } from './bench-attention';
import { addBenchLinear } from './bench-linear';
import { addBenchModel } from './bench-model';

const HELP = `
Each run checks its results against float64 before it times them, and measures
the machine's read bandwidth and f32 multiply-add peak between the timings, with
as many threads: percentages are of those limits. The table goes to stdout,
progress to stderr.

Examples:
  gqa bench                            attention, a minute or two
  gqa bench --heads 32/8/128 --context 4096 --dtype f32
  gqa bench --op decode --threads 2 --format csv > decode.csv
  gqa bench linear --tokens 1,512
  gqa bench model --model ./SmolLM2-135M --context 32,1024

gqa bench COMMAND --help lists the options of each.`;

export function addBench(program: Command): void {
  const bench = program
    .command('bench')
    .summary('time attention, linear layers or a model')
    .description('Time attention (the default), linear layers or a model on this machine.')
    .addHelpText('after', HELP);
  addBenchAttention(bench);
  addBenchLinear(bench);
  addBenchModel(bench);
}
