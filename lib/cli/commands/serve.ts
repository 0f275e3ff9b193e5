/** gqa serve: a model behind an OpenAI-compatible HTTP API, until a signal ends it. */
import { basename } from 'node:path';
import type { Command } from 'commander';
import { Engine, type EngineOptions } from '../../engine';
import { embeddedModel } from '../../model/embedded';
import { createServer, LOG_LEVELS, type LogLevel } from '../../server';
import { Stopped, stoppable } from '../exit';
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
import { print, Status } from '../terminal';

const HELP = `
Prints its URL to stdout once it takes requests, and logs JSON lines to stderr.
A signal drains it: no new requests, those under way are finished; a second one
ends it at once.

Environment:
  GQA_API_KEYS  API keys, separated by commas

Examples:
  gqa serve --model ./SmolLM2-135M-Instruct --precision fast
  gqa serve --model ./model.gguf --host 0.0.0.0 --api-key "$KEY" --max-sequences 32
  curl localhost:8080/v1/chat/completions -H 'content-type: application/json' \\
    -d '{"model": "model", "messages": [{"role": "user", "content": "Hi!"}]}'`;

interface Options extends WeightCacheOption {
  model?: string;
  name?: string;
  host: string;
  port: number;
  apiKey?: string[];
  logLevel: LogLevel;
  bodyLimit?: number;
  requestTimeout?: number;
  stallTimeout?: number;
  drainTimeout: number;
  maxQueue?: number;
  maxSequences?: number;
  stepTokens?: number;
  budgetTokens?: number;
  contextLength?: number;
  precision?: 'exact' | 'fast';
  kvDtype?: CacheDTypes;
  store?: string;
  storeTtl?: number;
  storeTimeout?: number;
  speculation: boolean;
  draftModel?: string;
  draftTokens?: number;
}

function milliseconds(seconds: number | undefined): number | undefined {
  return seconds === undefined ? undefined : Math.ceil(seconds * 1000);
}

function speculationOf({ speculation, draftModel, draftTokens }: Options) {
  if (!speculation) return false;
  return { lookup: true as const, draftModel, draftTokens };
}

function storeOf({ store, storeTtl, storeTimeout }: Options) {
  if (store === undefined) return undefined;
  return { url: store, ttlSeconds: storeTtl, timeoutMs: milliseconds(storeTimeout) };
}

function engineOptions(options: Options): EngineOptions {
  const { model, name, precision, contextLength, kvDtype, weightCache } = options;
  const { maxSequences, maxQueue, stepTokens, budgetTokens } = options;
  const file = model === undefined ? embeddedModel.name : basename(model).replace(/\.gguf$/i, '');
  return {
    ...{ precision, contextLength, maxSequences, maxQueue, stepTokens, budgetTokens, weightCache },
    name: name ?? file,
    kvCache: { dtype: kvDtype },
    speculation: speculationOf(options),
    store: storeOf(options),
  };
}

function apiKeys({ apiKey = [] }: Options): string[] {
  const fromEnvironment = (process.env.GQA_API_KEYS ?? '').split(',').map((key) => key.trim());
  return [...apiKey, ...fromEnvironment].filter((key) => key !== '');
}

function isLoopback(host: string): boolean {
  return host === 'localhost' || host === '::1' || host.startsWith('127.');
}

function aborted(signal: AbortSignal): Promise<void> {
  if (signal.aborted) return Promise.resolve();
  return new Promise((resolve) => signal.addEventListener('abort', () => resolve()));
}

async function serve(options: Options, signal: AbortSignal): Promise<void> {
  const status = new Status();
  const keys = apiKeys(options);
  if (keys.length === 0 && !isLoopback(options.host)) {
    status.note('no API key is set: whoever reaches this address may use the model');
  }
  status.update('loading the model');
  const engine = await Engine.start(options.model ?? embeddedModel.path, engineOptions(options));
  try {
    const server = await createServer(engine, {
      apiKeys: keys,
      logLevel: options.logLevel,
      bodyLimit: options.bodyLimit,
      requestTimeoutMs: milliseconds(options.requestTimeout),
      stallTimeoutMs: milliseconds(options.stallTimeout),
    });
    try {
      signal.throwIfAborted();
      const url = await server.listen(options);
      status.clear();
      await print(`${url}\n`);
      await aborted(signal);
      status.note('draining: requests under way are finished; a second signal ends them');
    } finally {
      await server.drain(milliseconds(options.drainTimeout));
    }
  } finally {
    status.clear();
    await engine.dispose();
  }
}

async function run(options: Options): Promise<void> {
  try {
    await stoppable((signal) => serve(options, signal));
  } catch (error) {
    // A signal is how a server ends: having drained, it has done what it was asked to.
    if (!(error instanceof Stopped)) throw error;
  }
}

function addEngineOptions(command: Command): Command {
  const count = integer({ min: 1 });
  return command
    .option('--max-sequences <n>', 'requests that run at once (16)', count)
    .option('--max-queue <n>', 'requests that wait; more are refused (256)', integer({ min: 0 }))
    .option('--step-tokens <n>', 'tokens computed in one step at most (256)', count)
    .option(
      '--budget-tokens <n>',
      'tokens that the KV cache holds, of all requests together (1 GiB of f32)',
      count,
    )
    .option('--context-length <n>', "prompt and answer together, at most (the model's)", count)
    .option(
      '--precision <precision>',
      'exact, or fast: activations may be rounded (exact)',
      oneOf('exact', 'fast'),
    )
    .option(
      '--kv-dtype <dtype>',
      'how the KV cache is stored: f32, f16, bf16, q8, q4, or K/V such as q8/q4 (f32; fast: bf16)',
      cacheDTypes,
    )
    .option('--store <url>', 'share prefixes through Redis or Valkey: redis://… or unix://…')
    .option('--store-ttl <seconds>', 'how long the store keeps them', count)
    .option('--store-timeout <seconds>', 'longer waits count as misses', decimal({ above: 0 }))
    .option('--no-speculation', 'do not draft tokens from the text itself')
    .option('--draft-model <path>', 'a smaller model with the same tokenizer, which drafts')
    .option('--draft-tokens <n>', 'tokens that it drafts at a time (4)', count);
}

export function addServe(program: Command): void {
  const command = program
    .command('serve')
    .summary('serve a model over an OpenAI-compatible HTTP API')
    .description('Serve a model over an OpenAI-compatible HTTP API, with a chat page at /.')
    .option('-m, --model <path>', 'Hugging Face folder or .gguf file (default: the embedded model)')
    .option('--name <name>', "what clients call the model (the file's or folder's name)")
    .option('--host <address>', 'address to listen at', '127.0.0.1')
    .option('--port <n>', 'port, 0 for a free one', integer({ min: 0, max: 65_535 }), 8080)
    .option('--api-key <key>', 'a key that requests need; may be given several times', collect)
    .option('--body-limit <bytes>', 'of a request (4194304)', integer({ min: 1 }))
    .option('--request-timeout <seconds>', 'to send a request in (60)', decimal({ above: 0 }))
    .option('--stall-timeout <seconds>', 'that a reader may pause (120)', decimal({ above: 0 }))
    .option(
      '--drain-timeout <seconds>',
      'that a signal leaves requests under way',
      decimal({ min: 0 }),
      60,
    )
    .option('--log-level <level>', LOG_LEVELS.join(', '), oneOf(...LOG_LEVELS), 'info');
  addWeightCache(addEngineOptions(command)).addHelpText('after', HELP).action(run);
}
