/** gqa uptrain: trains a converted model on, for a share of the tokens it was trained on originally. */
import type { Command } from 'commander';
import { TRAINED_PARTS, type TrainedPart } from '../../toolkit/uptrain/parameters';
import { uptrainPage, type UptrainResult } from '../../toolkit/uptrain/report';
import { uptrain, type UptrainOptions } from '../../toolkit/uptrain';
import { writeAtomically } from '../../format/atomic-output';
import { writeWholeFile } from '../../format/output-file';
import { stoppable } from '../exit';
import { decimal, integer, oneOf } from '../options';
import { print, Status } from '../terminal';

const HELP = `
Documents of a text end with a line <|end|>. OUT is a folder, or a file if it ends
in .gguf; weights keep their dtypes. The same seed gives the same model.

Interrupted (Ctrl-C), the state is kept in OUT.training; the same command with
--resume goes on from there, to the same bits.

Examples:
  gqa uptrain ./grouped ./trained --text stories.txt --alpha 0.05 --budget 8900000
  gqa uptrain ./grouped ./trained --text stories.txt --alpha 0.05 --budget 8900000 --teacher ./original --resume
  gqa uptrain ./grouped.gguf ./trained.gguf --text book.txt --alpha 0.01 --budget 2e9 --train kv+norms`;

type Options = Omit<UptrainOptions, 'model' | 'out' | 'evalText' | 'overwrite'> & {
  eval?: string;
  force?: boolean;
  html?: string;
  json?: boolean;
};

/** Steps between two kept lines where stderr is no terminal. */
const NOTE_EVERY = 50;

async function run(model: string, out: string, options: Options): Promise<void> {
  const { eval: evalText, force: overwrite, html, json, ...settings } = options;
  const status = new Status();
  await stoppable(async (signal) => {
    status.update('loading the model and the text');
    try {
      const onProgress = ({
        done,
        total,
        detail = '',
      }: {
        done: number;
        total: number;
        detail?: string;
      }) => {
        const line = `step ${done} of ${total}: ${detail}`;
        status.update(line);
        if (!process.stderr.isTTY && (done % NOTE_EVERY === 0 || done === total)) status.note(line);
      };
      const task = { ...settings, model, out, evalText, overwrite };
      const result = await uptrain(task, { signal, onProgress });
      status.clear();
      if (html !== undefined) writePage(html, result);
      await print(json === true ? `${JSON.stringify(result, null, 2)}\n` : textOf(result, out));
    } finally {
      status.clear();
    }
  });
}

function writePage(path: string, result: UptrainResult): void {
  writeAtomically(path, { kind: 'file', overwrite: true }, (partial) => {
    writeWholeFile(partial, uptrainPage(result));
  });
}

function textOf(result: UptrainResult, out: string): string {
  const { tokens, seconds, tokensPerSecond, losses, crossEntropy, evaluations } = result;
  const lines = [
    `${out}: ${tokens} tokens in ${seconds.toFixed(0)} s, ${Math.round(tokensPerSecond)} tokens/s`,
    `cross-entropy on ${result.text}: ${losses[0].crossEntropy.toFixed(4)} in the first step, ${losses.at(-1)!.crossEntropy.toFixed(4)} in the last`,
  ];
  if (crossEntropy !== null) {
    const steps = evaluations.map((past) => `${past.step}: ${past.crossEntropy.toFixed(4)}`);
    lines.push(`on ${result.evalText}, by steps: ${steps.join('  ')}`);
  }
  return `${lines.join('\n')}\n`;
}

/** Also as 2e9. */
function tokenCount(text: string): number {
  return integer({ min: 1 })(/^\d+(\.\d+)?e\d+$/i.test(text) ? String(Number(text)) : text);
}

export function addUptrain(program: Command): void {
  program
    .command('uptrain')
    .summary('train a converted model on')
    .description(
      'Trains a model on a text, for a share alpha of the tokens it was trained on originally.',
    )
    .argument('<in>', 'Hugging Face folder or .gguf file')
    .argument('<out>', 'where the trained model goes')
    .requiredOption('--text <file>', 'what to train on')
    .requiredOption('--alpha <share>', 'of the budget, such as 0.05', decimal({ above: 0 }))
    .requiredOption('--budget <tokens>', 'that the model was trained on originally', tokenCount)
    .option('--teacher <model>', 'the original, whose distribution is learnt too')
    .option(
      '--teacher-share <share>',
      'of the loss: 1 learns from the teacher alone (0.5)',
      decimal({ min: 0, max: 1 }),
    )
    .option('--resume', 'go on from where an interrupted run stopped')
    .option(
      '--train <parts>',
      `what is trained: ${TRAINED_PARTS.join(', ')} (all)`,
      oneOf<TrainedPart>(...TRAINED_PARTS),
    )
    .option('--learning-rate <r>', 'the highest (0.2 / hidden size)', decimal({ above: 0 }))
    .option('--batch <n>', 'windows a step (4)', integer({ min: 1 }))
    .option('--window <n>', 'tokens of a window (384)', integer({ min: 2 }))
    .option('--seed <n>', 'of the order of windows (0)', integer({ min: 0 }))
    .option('--eval <file>', 'held-back text: cross-entropy before, between and after')
    .option('--eval-every <n>', 'steps (a tenth of the run)', integer({ min: 1 }))
    .option('--save-every <n>', 'steps between savings of the state (50)', integer({ min: 1 }))
    .option('--force', 'replace an output, or an interrupted run, that is there')
    .option('--html <file>', 'page with the loss curve')
    .option('--json', 'result as JSON')
    .addHelpText('after', HELP)
    .action(run);
}
