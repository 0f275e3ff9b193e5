/** gqa perplexity: how well a model predicts a text over KV caches of several kinds. */
import { readFileSync } from 'node:fs';
import { basename } from 'node:path';
import type { Command } from 'commander';
import { getBackend } from '../../backend';
import { GqaError } from '../../core/errors';
import type { Precision } from '../../core/precision';
import { loadModel, type CacheScore, type KvCacheSettings, type Model } from '../../model';
import { isQuantised } from '../../model/cache-settings';
import { embeddedModel } from '../../model/embedded';
import type { Column, Row } from '../bench/report';
import { machineRow } from '../bench/sweep';
import { stoppable } from '../exit';
import {
  addWeightCache,
  cacheDTypes,
  integer,
  oneOf,
  type CacheDTypes,
  type WeightCacheOption,
} from '../options';
import { Status } from '../terminal';
import { addReportOptions, listOption, printReport, type ReportOptions } from './bench-options';

const HELP = `
The first cache is what the others are held against. Tokens go through the model
64 at a time: a quantised cache reads these in f16, all those before quantised.

Examples:
  gqa perplexity --text book.txt
  gqa perplexity --model ./model.gguf --text book.txt --kv-dtype f32,q8,q8/q4,q4
  gqa perplexity --text book.txt --kv-dtype f16,q4 --rotate both --recent 128
  gqa perplexity --text book.txt --tokens 20000 --kv-dtype f16 --window 256 --sink-tokens 4 --positions cache`;

const DTYPES = 'f32,f16,bf16,q8,q4';

interface Options extends ReportOptions, WeightCacheOption {
  text: string;
  model?: string;
  tokens: number;
  kvDtype: CacheDTypes[];
  rotate?: 'auto' | 'on' | 'off' | 'both';
  recent?: number;
  window?: number;
  sinkTokens?: number;
  positions?: 'absolute' | 'cache';
  precision?: Precision;
}

const COLUMNS: Column[] = [
  { key: 'k', title: 'K' },
  { key: 'v', title: 'V' },
  { key: 'rotated', title: 'rotated' },
  { key: 'recent', title: 'recent' },
  { key: 'bitsPerValue', title: 'bits a value', decimals: 2 },
  { key: 'bytesPerToken', title: 'bytes a token', decimals: 0 },
  { key: 'perplexity', title: 'perplexity', decimals: 4 },
  { key: 'change', title: 'change', style: 'percent', decimals: 3 },
  { key: 'divergence', title: 'KL divergence', style: 'scientific', decimals: 2 },
  { key: 'tokensPerSecond', title: 'tokens/s', decimals: 0 },
  { key: 'meanNll' },
];

const NOTES = [
  'Change of perplexity and mean KL divergence (nats) of the next token are against the first row. Bits a value count',
  'scales and minimums.',
];

function isQ4({ k, v }: CacheDTypes): boolean {
  return k === 'q4' || v === 'q4';
}

/** Undefined leaves the choice to the cache. */
function rotations({ rotate }: Options, dtype: CacheDTypes): (boolean | undefined)[] {
  switch (rotate) {
    case 'auto':
      return [undefined];
    case 'on':
      return [true];
    case 'off':
      return [false];
    case 'both':
      return [true, false];
    default:
      return isQ4(dtype) ? [undefined, false] : [undefined];
  }
}

type CacheKind = KvCacheSettings & { dtype: CacheDTypes };

function cachesOf(options: Options): CacheKind[] {
  const { window, sinkTokens, positions } = options;
  return options.kvDtype.flatMap((dtype) => {
    const recent = isQuantised(dtype) ? options.recent : undefined;
    return rotations(options, dtype).map((rotate) => {
      return { dtype, rotate, recent, window, sinkTokens, positions };
    });
  });
}

function rotatedText({ k, v }: { k: boolean; v: boolean }): string {
  return [k ? 'K' : '', v ? 'V' : ''].filter((part) => part !== '').join(' and ');
}

function rowOf(
  score: CacheScore,
  { dtype, recent }: CacheKind,
  first: CacheScore,
  { layerKvHeads, headDim }: Model['config'],
): Row {
  const { perplexity, divergence, tokensPerSecond, bytesPerToken, meanNll } = score;
  return {
    k: dtype.k,
    v: dtype.v,
    rotated: rotatedText(score.rotate),
    recent: recent ?? null,
    bitsPerValue: (8 * bytesPerToken) / (2 * layerKvHeads.reduce((a, b) => a + b) * headDim),
    bytesPerToken,
    perplexity,
    change: perplexity / first.perplexity - 1,
    divergence,
    tokensPerSecond,
    meanNll,
  };
}

function windowRow({ window, sinkTokens = 0, positions = 'absolute' }: Options): Row {
  return window === undefined ? { positions } : { window, sinkTokens, positions };
}

function readText(path: string): string {
  try {
    return readFileSync(path, 'utf8');
  } catch (error) {
    const { message } = error as Error;
    throw new GqaError('INVALID_ARGUMENT', `Expected a text file for --text: ${message}`);
  }
}

async function run(options: Options, command: Command): Promise<void> {
  if (options.sinkTokens !== undefined && options.window === undefined) {
    command.error(
      "error: option '--sink-tokens <n>' needs '--window <n>'; without it all tokens stay",
    );
  }
  const status = new Status();
  await stoppable(async (signal) => {
    const text = readText(options.text);
    status.update('loading the model');
    const { precision, weightCache } = options;
    const model = await loadModel(options.model ?? embeddedModel.path, { precision, weightCache });
    try {
      signal.throwIfAborted();
      status.update('reading the text');
      const ids = model.tokenizer.encode(text).slice(0, options.tokens);
      const caches = cachesOf(options);
      const scores = await model.compareCaches(ids, caches, { signal });
      status.clear();
      const machine: Row = {
        model: options.model === undefined ? embeddedModel.name : basename(options.model),
        text: basename(options.text),
        tokens: ids.length,
        precision: precision ?? 'exact',
        ...windowRow(options),
        ...machineRow(getBackend()),
      };
      const rows = scores.map((score, i) => rowOf(score, caches[i], scores[0], model.config));
      const report = { bench: 'perplexity', machine, notes: NOTES, columns: COLUMNS, rows };
      await printReport(report, options);
    } finally {
      status.clear();
      await model.dispose();
    }
  });
}

export function addPerplexity(program: Command): void {
  const command = program
    .command('perplexity')
    .summary('what a smaller KV cache costs')
    .description('Perplexity of a model on a text, for several kinds of KV cache.')
    .requiredOption('--text <file>', 'what the model is to predict')
    .option('-m, --model <path>', 'Hugging Face folder or .gguf file (default: the embedded model)')
    .option('-n, --tokens <n>', 'of the text, from its beginning', integer({ min: 2 }), 2048)
    .addOption(
      listOption(
        '--kv-dtype <list>',
        'how keys and values are stored: f32, f16, bf16, q8, q4, or K/V such as q8/q4',
        cacheDTypes,
        DTYPES,
      ),
    )
    .option(
      '--rotate <choice>',
      'store keys and values rotated: on, off, both, or auto, as the cache does by itself (auto, and q4 without too)',
      oneOf('auto', 'on', 'off', 'both'),
    )
    .option(
      '--recent <n>',
      'newest tokens that quantised caches keep in full precision, in blocks of 64 (0)',
      integer({ min: 0 }),
    )
    .option('--window <n>', 'tokens see the last n tokens only', integer({ min: 1 }))
    .option(
      '--sink-tokens <n>',
      'first tokens that stay visible with --window',
      integer({ min: 0 }),
    )
    .option(
      '--positions <positions>',
      'absolute, or cache: count only what is still visible (absolute)',
      oneOf('absolute', 'cache'),
    )
    .option(
      '--precision <precision>',
      'exact, or fast: activations may be rounded (exact)',
      oneOf<Precision>('exact', 'fast'),
    );
  addReportOptions(addWeightCache(command)).addHelpText('after', HELP).action(run);
}
