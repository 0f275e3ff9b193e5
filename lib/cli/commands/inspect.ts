/** gqa inspect: what a model's attention does with a text, and which layers are cheap to group. */
import { writeFileSync } from 'node:fs';
import type { Command } from 'commander';
import { GqaError } from '../../core/errors';
import { inspectModel, type InspectOptions } from '../../toolkit/observe/inspect-model';
import { inspectPage } from '../../toolkit/observe/inspect-page';
import { conclusions, headTable, layerTable, notes } from '../../toolkit/observe/inspect-tables';
import { markdownTable } from '../../toolkit/table';
import { stoppable } from '../exit';
import { decimal, integer } from '../options';
import { print, Status } from '../terminal';

const HELP = `
Statistics come from inside the attention kernels. For every layer the error of
grouping its KV heads is measured, without training; see docs/observation.md.

Examples:
  gqa inspect ./model --text book.txt
  gqa inspect ./model.gguf --text book.txt --html attention.html
  gqa inspect ./model --text book.txt --tokens 4000 --groupings 1 --json`;

interface Options extends Omit<InspectOptions, 'maxTokens' | 'signal' | 'onProgress'> {
  tokens?: number;
  heads?: boolean;
  html?: string;
  json?: boolean;
}

function writePage(path: string, text: string): void {
  try {
    writeFileSync(path, text);
  } catch (cause) {
    const message = `Cannot write ${path}: ${(cause as Error).message}`;
    const expected = 'a file that can be written';
    throw new GqaError('WRITE_FAILED', message, {
      argument: '--html',
      expected,
      received: path,
      cause,
    });
  }
}

async function run(model: string, options: Options): Promise<void> {
  const { tokens: maxTokens, heads, html, json, ...settings } = options;
  const status = new Status();
  await stoppable(async (signal) => {
    try {
      const report = await inspectModel(model, {
        ...settings,
        maxTokens,
        signal,
        onProgress: ({ stage, done, total }) =>
          status.update(`${stage} ${Math.floor((100 * done) / total)} %`),
      });
      status.clear();
      if (html !== undefined) writePage(html, inspectPage(report));
      if (json) return await print(`${JSON.stringify(report, null, 2)}\n`);
      const { text, layers } = report;
      const about = `${model} · ${layers.length} layers · ${text.tokens} tokens of ${text.path} in ${text.windows} windows`;
      const lines = [about, '', ...markdownTable(layerTable(report)), ''];
      if (heads) lines.push(...markdownTable(headTable(report)), '');
      await print([...lines, ...notes(report), '', ...conclusions(report), ''].join('\n'));
    } finally {
      status.clear();
    }
  });
}

export function addInspect(program: Command): void {
  program
    .command('inspect')
    .summary('what a model’s attention does with a text')
    .description(
      'Entropy, sinks, effective context and logits of every head, similarity of KV heads, and what grouping them would cost.',
    )
    .argument('<model>', 'Hugging Face folder or .gguf file')
    .requiredOption('--text <file>', 'what the model reads')
    .option('-n, --tokens <n>', 'of the text, from its beginning (16384)', integer({ min: 2 }))
    .option('--window <n>', 'tokens that are read together (384)', integer({ min: 2 }))
    .option(
      '--groupings <n>',
      'counts of KV heads that are measured for each layer, 0 for none (3)',
      integer({ min: 0 }),
    )
    .option('--sink-tokens <n>', 'first tokens whose weight is told (4)', integer({ min: 0 }))
    .option('--recent-tokens <n>', 'newest tokens whose weight is told (64)', integer({ min: 0 }))
    .option('--spread-alarm <x>', 'spread of entropies within a group (0.3)', decimal({ min: 0 }))
    .option('--heads', 'print a line for every head too')
    .option('--html <file>', 'write heatmaps and tables there')
    .option('--json', 'print one JSON document')
    .addHelpText('after', HELP)
    .action(run);
}
