/** gqa convert: a checkpoint with fewer KV heads, and a report of what that did to it. */
import { existsSync } from 'node:fs';
import { InvalidArgumentError, Option, type Command } from 'commander';
import { describe } from '../../core/validate';
import { writeAtomically } from '../../format/atomic-output';
import { invalidFile, readJsonFile } from '../../format/file';
import { writeWholeFile } from '../../format/output-file';
import { convertCheckpoint, damagePage, METHODS, type Method } from '../../toolkit/convert';
import { layerTable, summaryLines } from '../../toolkit/report/tables';
import { markdownTable } from '../../toolkit/table';
import { stoppable } from '../exit';
import { integer } from '../options';
import { print, Status } from '../terminal';

const HELP = `
Methods:
  mean     each new KV head is the mean of its group (the GQA paper's)
  first    the first head of the group
  random   a head drawn anew, for comparison
  medoid   the head of the group most like the others
  aligned  heads turned to each other, averaged, norms restored
  fitted   principal components, and an output projection fitted to
           the calibration text: the least damage

OUT ending in .gguf is a GGUF file, anything else a Hugging Face folder. Nothing
is there before it is whole.

Examples:
  gqa convert ./model ./model-gqa --method fitted --kv-heads 8 --regroup --text held-back.txt --calibration train.txt
  gqa convert model.gguf out.gguf --method aligned --kv-heads 4
  gqa convert ./model ./out --method mean --kv-heads plan.json --text FILE --report damage.json --html damage.html`;

const MAX_PLAN_BYTES = 2 ** 20;

interface Options {
  method: Method;
  kvHeads: number | string;
  regroup?: boolean;
  text?: string;
  calibration?: string;
  report?: string;
  html?: string;
  seed: number;
  maxTokens: number;
  window: number;
  force?: boolean;
  json?: boolean;
}

/** A number, or the path of a file that is there. */
function kvHeadsOption(text: string): number | string {
  if (/^\d+$/.test(text)) return integer({ min: 1 })(text);
  if (existsSync(text)) return text;
  throw new InvalidArgumentError('Expected a number, or a JSON file with one number a layer.');
}

function readPlan(kvHeads: number | string): number | number[] {
  if (typeof kvHeads === 'number') return kvHeads;
  const plan = readJsonFile(kvHeads, MAX_PLAN_BYTES);
  if (Array.isArray(plan)) return plan as number[];
  throw invalidFile(kvHeads, 'a list of numbers, one a layer,', describe(plan));
}

function writeFile(path: string | undefined, make: () => string, sources: string[]): void {
  if (path === undefined) return;
  writeAtomically(path, { kind: 'file', overwrite: true, sources }, (partial) =>
    writeWholeFile(partial, make()),
  );
}

async function run(input: string, output: string, options: Options): Promise<void> {
  const status = new Status();
  const { method, regroup, text, calibration, seed, maxTokens, window, force } = options;
  const kvHeads = readPlan(options.kvHeads);
  await stoppable(async (signal) => {
    const report = await convertCheckpoint(input, output, {
      ...{ method, kvHeads, regroup, text, calibration, seed, maxTokens, window },
      overwrite: force,
      signal,
      onProgress: ({ stage, done, total }) => status.update(`${stage}: ${done} of ${total}`),
    });
    status.clear();
    const json = `${JSON.stringify(report, null, 2)}\n`;
    writeFile(options.report, () => json, [input]);
    writeFile(options.html, () => damagePage(report), [input]);
    const lines = [...markdownTable(layerTable(report)), '', ...summaryLines(report), ''];
    await print(options.json === true ? json : lines.join('\n'));
    if (report.text !== null && report.text.cut > 0) {
      status.note(
        `used the first ${report.text.tokens} tokens of ${report.text.path} (--max-tokens)`,
      );
    }
  });
}

export function addConvert(program: Command): void {
  program
    .command('convert')
    .summary('fewer KV heads in a checkpoint: MHA to GQA or MQA')
    .description('Writes a checkpoint with fewer KV heads, and says what that did to the model.')
    .argument('<in>', 'a Hugging Face folder or a .gguf file (Llama architecture)')
    .argument('<out>', 'a folder, or a file that ends in .gguf')
    .addOption(
      new Option('--method <method>', 'how heads of a group become one')
        .choices(METHODS)
        .makeOptionMandatory(),
    )
    .requiredOption(
      '--kv-heads <n|file>',
      'KV heads of every layer, or a JSON file with a list of each',
      kvHeadsOption,
    )
    .option('--regroup', 'similarity decides which heads share a group')
    .option('--text <file>', 'measures the damage on this text')
    .option('--calibration <file>', 'text for --method fitted (default: that of --text)')
    .option('--report <file>', 'writes the report as JSON')
    .option('--html <file>', 'writes the report as a page with plots')
    .option('--seed <n>', 'of --method random', integer({ min: 0 }), 0)
    .option('--max-tokens <n>', 'tokens of each text that are used', integer({ min: 2 }), 65_536)
    .option('--window <n>', 'tokens that are read together', integer({ min: 2 }), 384)
    .option('--force', 'replaces an output that is there')
    .option('--json', 'prints the report as one JSON document')
    .addHelpText('after', HELP)
    .action(run);
}
