#!/usr/bin/env node
/** The `gqa` command: parses the command line, runs a command, turns what it throws into an exit code. */
import { Command } from 'commander';
import { packageVersion } from './about';
import { addBench } from './commands/bench';
import { addConvert } from './commands/convert';
import { addGenerate } from './commands/generate';
import { addInfo } from './commands/info';
import { addInspect } from './commands/inspect';
import { addPerplexity } from './commands/perplexity';
import { addPlan } from './commands/plan';
import { addServe } from './commands/serve';
import { addUptrain } from './commands/uptrain';
import { EXIT_OK, reportError } from './exit';
import { leaveWhenPipeCloses } from './terminal';

const HELP = `
Results go to stdout, status and progress to stderr.

Examples:
  gqa generate                               a story by the embedded model
  gqa generate "Once upon a time" --seed 7
  gqa generate --model ./SmolLM2-135M-Instruct --chat "What is a KV cache?"
  echo "The sea was" | gqa generate - --max-tokens 40 --json
  gqa serve --model ./model.gguf             an OpenAI-compatible server, with a
                                             chat page
  gqa bench --heads 32/8/128 --context 4096  how close to this machine's limits
  gqa perplexity --text FILE                 what a smaller KV cache costs
  gqa plan llama-3.1-8b --batch 8            what a model and its cache take
  gqa uptrain IN OUT --text FILE --alpha 0.05 --budget 8900000
                                             train a converted model on
  gqa inspect MODEL --text FILE              what attention does with a text
  gqa info                                   which backend runs here, and why

Environment:
  GQA_BACKEND=native|js  force the addon, or the JavaScript backend
  GQA_ISA=NAME           force an instruction set of the addon, one that
                         gqa info names
  GQA_THREADS=N          threads that share a call (default: what CPU affinity
                         and cgroup allow)
  GQA_DEBUG=1            print the stack of an error

Exit codes: 0 success, 1 the operation failed, 2 wrong usage, 130 interrupted.`;

function buildProgram(): Command {
  const program = new Command('gqa')
    .description(
      'Grouped-query attention for Node: run a model, measure the kernels, see what runs here.',
    )
    .version(packageVersion(), '-V, --version', 'print the version')
    .helpOption('-h, --help', 'print this help')
    .addHelpText('after', HELP)
    .showHelpAfterError('(--help shows usage and examples)')
    .configureOutput({
      outputError: (text, write) => write(text.replace(/^error: /, 'gqa: ')),
    })
    .exitOverride();
  addGenerate(program);
  addServe(program);
  addBench(program);
  addPerplexity(program);
  addPlan(program);
  addUptrain(program);
  addConvert(program);
  addInspect(program);
  addInfo(program);
  return program;
}

async function main(): Promise<number> {
  leaveWhenPipeCloses();
  try {
    await buildProgram().parseAsync();
    return EXIT_OK;
  } catch (error) {
    return reportError(error);
  }
}

void main().then((code) => {
  process.exitCode = code;
});
