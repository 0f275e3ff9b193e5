/** gqa generate: streams a model's text to stdout; how fast it came, and on what, to stderr. */
import { basename } from 'node:path';
import type { Command } from 'commander';
import type { BackendInfo } from '../../backend/contract';
import {
  loadModel,
  type GenerateOptions,
  type GenerationStats,
  type Model,
  type WeightFacts,
} from '../../model';
import { embeddedModel } from '../../model/embedded';
import { stoppable } from '../exit';
import {
  addWeightCache,
  cacheDTypes,
  collect,
  decimal,
  integer,
  oneOf,
  type CacheDTypes,
  type WeightCacheOption,
} from '../options';
import { readPrompt } from '../prompt';
import { print, Status } from '../terminal';

const HELP = `
Without --model the model that comes with the package writes: a very small one,
made for children's stories, with sampling settings that suit it where none are
given (those in brackets are of other models). Without PROMPT it begins a story
of its own, the same each time unless --seed changes it.

Examples:
  gqa generate "One day, Tom found a map" --seed 3
  gqa generate --model ./SmolLM2-135M-Instruct --chat "Name three rivers."
  gqa generate --model ./model.gguf - --max-tokens 100 < prompt.txt
  gqa generate --model ./model.gguf "Once" --window 1024 --sink-tokens 4 --kv-positions cache
  gqa generate --json | jq -r .text`;

type Sampling = Pick<
  GenerateOptions,
  'maxTokens' | 'temperature' | 'topK' | 'topP' | 'minP' | 'repetitionPenalty' | 'seed'
>;

interface Options extends Sampling, WeightCacheOption {
  model?: string;
  chat?: boolean;
  stop?: string[];
  kvDtype?: CacheDTypes;
  kvRotate?: 'on' | 'off';
  kvRecent?: number;
  kvPositions?: 'absolute' | 'cache';
  window?: number;
  sinkTokens?: number;
  contextLength?: number;
  precision?: 'exact' | 'fast';
  json?: boolean;
}

interface Outcome extends GenerationStats {
  model: string;
  prompt: string;
  text: string;
  tokenIds: number[];
  backend: BackendInfo;
  weights: WeightFacts;
}

function checkUsage(prompt: string | undefined, options: Options, command: Command): void {
  if (prompt === undefined && options.model !== undefined) {
    command.error(
      "error: missing argument 'PROMPT', which --model needs ('-' reads it from stdin)",
    );
  }
  if (options.sinkTokens !== undefined && options.window === undefined) {
    command.error(
      "error: option '--sink-tokens <n>' needs '--window <n>'; without it all tokens stay",
    );
  }
}

/** Only what was given: an undefined here would hide the embedded model's own setting. */
function samplingOf(options: Options): Sampling {
  const { maxTokens, temperature, topK, topP, minP, repetitionPenalty, seed } = options;
  const given = { maxTokens, temperature, topK, topP, minP, repetitionPenalty, seed };
  return Object.fromEntries(Object.entries(given).filter(([, value]) => value !== undefined));
}

function load({
  model,
  kvDtype,
  kvRotate,
  kvRecent,
  kvPositions,
  window,
  sinkTokens,
  contextLength,
  precision,
  weightCache,
}: Options): Promise<Model> {
  return loadModel(model ?? embeddedModel.path, {
    precision,
    weightCache,
    contextLength,
    kvCache: {
      dtype: kvDtype,
      rotate: kvRotate === undefined ? undefined : kvRotate === 'on',
      recent: kvRecent,
      positions: kvPositions,
      window,
      sinkTokens,
    },
  });
}

/** Runs the model, passing on each piece of text as it comes. An abort ends it early, without an error. */
async function generate(
  model: Model,
  prompt: string,
  options: Options,
  { signal, onText }: { signal: AbortSignal; onText: (text: string) => Promise<void> },
): Promise<Outcome> {
  const defaults = options.model === undefined ? embeddedModel.options : {};
  const generation = model.generate(options.chat ? [{ role: 'user', content: prompt }] : prompt, {
    ...defaults,
    ...samplingOf(options),
    stop: options.stop,
    signal,
  });
  let text = '';
  const tokenIds: number[] = [];
  try {
    for await (const piece of generation) {
      text += piece.text;
      tokenIds.push(piece.token);
      await onText(piece.text);
    }
  } catch (error) {
    if (!signal.aborted) throw error;
  }
  const name = options.model === undefined ? embeddedModel.name : basename(options.model);
  const { backend, weights } = model;
  return { model: name, prompt, text, tokenIds, ...generation.stats, backend, weights };
}

function plural(count: number, noun: string): string {
  return `${count} ${noun}${count === 1 ? '' : 's'}`;
}

function summary({ model, backend, weights, ...stats }: Outcome): string {
  const { promptTokens, promptTokensPerSecond, tokens, tokensPerSecond, finishReason } = stats;
  const parts = [
    model,
    `prompt ${plural(promptTokens, 'token')}, ${promptTokensPerSecond.toFixed(0)} tokens/s`,
    `generated ${plural(tokens, 'token')}, ${tokensPerSecond.toFixed(0)} tokens/s (${finishReason})`,
    `${backend.kind} ${backend.isa}, ${plural(backend.threads, 'thread')}, ` +
      (weights.source === 'cache' ? 'mapped weights' : 'packed weights'),
  ];
  return parts.join(' | ');
}

async function run(
  argument: string | undefined,
  options: Options,
  command: Command,
): Promise<void> {
  checkUsage(argument, options, command);
  const status = new Status();
  await stoppable(async (signal) => {
    const prompt = await readPrompt(argument ?? embeddedModel.prompt, signal);
    status.update('loading the model');
    const model = await load(options);
    const { source, reason } = model.weights;
    try {
      if (options.weightCache && source === 'packed') {
        status.note(`weights packed in memory: ${reason}`);
      }
      signal.throwIfAborted();
      status.update('reading the prompt');
      const onText = async (text: string) => {
        status.clear();
        if (!options.json) await print(text);
      };
      const outcome = await generate(model, prompt, options, { signal, onText });
      await print(options.json ? `${JSON.stringify(outcome, null, 2)}\n` : '\n');
      status.note(summary(outcome));
    } finally {
      status.clear();
      await model.dispose();
    }
  });
}

function addCacheOptions(command: Command): Command {
  return command
    .option(
      '--kv-dtype <dtype>',
      'how the KV cache is stored: f32, f16, bf16, q8, q4, or K/V such as q8/q4 (f32; fast: bf16)',
      cacheDTypes,
    )
    .option(
      '--kv-rotate <choice>',
      'on or off: store keys and values rotated (on for q4)',
      oneOf('on', 'off'),
    )
    .option(
      '--kv-recent <n>',
      'newest tokens that a quantised cache keeps in full precision, in blocks of 64 (0)',
      integer({ min: 0 }),
    )
    .option(
      '--kv-positions <positions>',
      'absolute, or cache: count only what is still visible, for texts without end (absolute)',
      oneOf('absolute', 'cache'),
    )
    .option('--window <n>', 'tokens see the last n tokens only', integer({ min: 1 }))
    .option(
      '--sink-tokens <n>',
      'first tokens that stay visible with --window',
      integer({ min: 0 }),
    );
}

export function addGenerate(program: Command): void {
  const command = program
    .command('generate')
    .summary('continue a prompt with a model')
    .description('Continue PROMPT with a model. Text goes to stdout as it comes, speed to stderr.')
    .argument('[PROMPT]', "text to continue; '-' reads it from stdin")
    .option('-m, --model <path>', 'Hugging Face folder or .gguf file (default: the embedded model)')
    .option('--chat', "PROMPT is a message, put into the model's chat template")
    .option('-n, --max-tokens <n>', 'tokens to generate at most (256)', integer({ min: 0 }))
    .option('-t, --temperature <t>', '0 takes the most likely token (0)', decimal({ min: 0 }))
    .option(
      '--top-k <k>',
      'sample from the k most likely tokens, 0 for all (0)',
      integer({ min: 0 }),
    )
    .option(
      '--top-p <p>',
      'sample from the fewest tokens that hold this probability (1)',
      decimal({ min: 0, max: 1 }),
    )
    .option(
      '--min-p <p>',
      'sample from tokens at least this fraction as likely as the likeliest (0)',
      decimal({ min: 0, max: 1 }),
    )
    .option(
      '--repetition-penalty <r>',
      'above 1 makes tokens already used less likely (1)',
      decimal({ above: 0 }),
    )
    .option('--seed <n>', 'the same seed gives the same text', integer())
    .option('--stop <text>', 'end before this text; may be given several times', collect);
  addWeightCache(addCacheOptions(command))
    .option(
      '--context-length <n>',
      "prompt and answer together, at most (the model's)",
      integer({ min: 1 }),
    )
    .option(
      '--precision <precision>',
      'exact, or fast: activations may be rounded (exact)',
      oneOf('exact', 'fast'),
    )
    .option('--json', 'print one JSON document instead of streaming')
    .addHelpText('after', HELP)
    .action(run);
}
