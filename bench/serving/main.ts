/**
 * What an engine gives many clients at once: `npm run bench:serving -- MODEL.gguf [exact|fast] [PART…]`. Checks first that
 * the answers of clients beside each other are those of one alone.
 */
import { spawnSync } from 'node:child_process';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { Engine, type EngineOptions } from '../../lib';
import { peersFolder } from '../peers/folder';
import { firstTokenMs, median, read, serve, type Served } from './clients';
import { copyPrompt, promptOf } from './prompts';

const PROMPT_TOKENS = 32;
const ANSWER_TOKENS = 64;
const CLIENTS = [1, 2, 4, 8, 16];
const PREFIX_TOKENS = 1500;
const REPEATS = 2;
const PARTS = ['clients', 'ninth', 'prefix', 'lookup'];

function say(label: string, value: string, bar = ''): void {
  process.stdout.write(`${label.padEnd(52)} ${value.padStart(14)}  ${bar}\n`);
}

function ratio(value: number, least: number): string {
  return `bar >= ${least}x: ${value >= least ? 'held' : 'MISSED'}`;
}

async function checkAnswers(engine: Engine, prompts: number[][], together: Served): Promise<void> {
  for (const [i, prompt] of prompts.entries()) {
    const { ids } = await serve(engine, [prompt], ANSWER_TOKENS);
    if (ids[0].join() !== together.ids[i].join()) throw new Error(`Answer ${i} differs when alone`);
  }
}

async function throughput(engine: Engine): Promise<Map<number, number>> {
  const rates = new Map<number, number>();
  let worstDelay = 0;
  for (const clients of CLIENTS) {
    const runs: Served[] = [];
    for (let repeat = 0; repeat < REPEATS; repeat++) {
      const prompts = Array.from({ length: clients }, (_, i) =>
        promptOf(engine.tokenizer, 1000 * clients + 100 * repeat + i, PROMPT_TOKENS),
      );
      runs.push(await serve(engine, prompts, ANSWER_TOKENS));
    }
    rates.set(clients, Math.max(...runs.map(({ tokensPerSecond }) => tokensPerSecond)));
    const delay = Math.max(...runs.map(({ loopDelayP99 }) => loopDelayP99));
    worstDelay = Math.max(worstDelay, delay);
    const name = `${clients} client${clients === 1 ? '' : 's'}`;
    say(name, `${rates.get(clients)!.toFixed(1)} tok/s`, `loop delay p99 ${delay.toFixed(1)} ms`);
  }
  const gain = rates.get(8)! / rates.get(1)!;
  say('8 clients against 1', `${gain.toFixed(2)}x`, ratio(gain, 3));
  say('event-loop delay, worst p99', `${worstDelay.toFixed(1)} ms`, 'bar < 10 ms');
  return rates;
}

function besideLlamaCpp(engine: Engine, path: string, ours: number): void {
  const prompts = Array.from({ length: 8 }, (_, i) => promptOf(engine.tokenizer, i, PROMPT_TOKENS));
  const folder = join(peersFolder(), 'npm');
  const threads = String(engine.model.backend.threads);
  const { status, stdout } = spawnSync(
    process.execPath,
    [
      join(__dirname, 'llama-cpp.js'),
      ...[folder, path, JSON.stringify(prompts), String(ANSWER_TOKENS), threads],
    ],
    { encoding: 'utf8', maxBuffer: 2 ** 26 },
  );
  if (status !== 0) {
    say('node-llama-cpp, 8 sequences', 'not installed', 'npm run bench:peers installs it');
    return;
  }
  const { tokensPerSecond } = JSON.parse(stdout.slice(stdout.indexOf('{'))) as Served;
  say('node-llama-cpp, 8 sequences', `${tokensPerSecond.toFixed(1)} tok/s`);
  const gain = ours / tokensPerSecond;
  say('8 clients against it', `${gain.toFixed(2)}x`, ratio(gain, 2));
}

async function ninthClient(engine: Engine): Promise<void> {
  let number = 50_000;
  const next = (): number[] => promptOf(engine.tokenizer, number++, 200);
  const idle: number[] = [];
  const busy: number[] = [];
  for (let i = 0; i < 5; i++) idle.push(await firstTokenMs(engine, next()));
  const background = Array.from({ length: 8 }, (_, i) =>
    read(
      engine.submit({
        prompt: promptOf(engine.tokenizer, 60_000 + i, PROMPT_TOKENS),
        maxTokens: 400,
        ignoreEos: true,
      }),
    ),
  );
  await sleep(1000);
  for (let i = 0; i < 5; i++) {
    busy.push(await firstTokenMs(engine, next()));
    await sleep(137);
  }
  const running = engine.stats().running;
  if (running < 8) throw new Error(`Only ${running} clients were still generating`);
  await Promise.all(background);
  const [alone, ninth] = [median(idle), median(busy)];
  say('first token of a 200-token prompt, idle', `${alone.toFixed(0)} ms`);
  const times = ninth / alone;
  const bar = `bar < 2x: ${times < 2 ? 'held' : 'MISSED'}`;
  say('the same of a ninth client', `${ninth.toFixed(0)} ms`, `${times.toFixed(2)}x, ${bar}`);
}

async function sharedPrefix(engine: Engine): Promise<void> {
  const prefix = promptOf(engine.tokenizer, 70_000, PREFIX_TOKENS);
  const question = (text: string): number[] => [
    ...prefix,
    ...engine.tokenizer.encode(text, { bos: false }),
  ];
  const first = await firstTokenMs(engine, question(' What did the baker carry?'));
  const second = await firstTokenMs(engine, question(' Who copied the letters?'));
  say(`first token after ${PREFIX_TOKENS} new tokens`, `${first.toFixed(0)} ms`);
  const gain = first / second;
  const bar = `${gain.toFixed(1)}x sooner, ${ratio(gain, 8)}`;
  say('another question after the same', `${second.toFixed(0)} ms`, bar);
}

async function lookup(path: string, options: EngineOptions, plain: Engine): Promise<void> {
  const engine = await Engine.start(path, { ...options, speculation: { lookup: true } });
  const prompt = copyPrompt(engine.tokenizer);
  const measure = async (one: Engine): Promise<{ rate: number; ids: number[] }> => {
    let best = { rate: 0, ids: [] as number[] };
    for (let repeat = 0; repeat < REPEATS; repeat++) {
      const run = one.submit({ prompt, maxTokens: 160, ignoreEos: true });
      const ids = await read(run);
      const { tokensPerSecond } = (await run.result).timings;
      if (tokensPerSecond > best.rate) best = { rate: tokensPerSecond, ids };
    }
    return best;
  };
  const [without, drafted] = [await measure(plain), await measure(engine)];
  if (without.ids.join() !== drafted.ids.join()) throw new Error('Lookup changed the answer');
  const { speculation } = engine.stats();
  const share = (100 * speculation.accepted) / speculation.drafted;
  say('copying a list, plain', `${without.rate.toFixed(1)} tok/s`);
  const gain = drafted.rate / without.rate;
  say('with prompt lookup, same answer', `${drafted.rate.toFixed(1)} tok/s`);
  say('gain', `${gain.toFixed(2)}x`, `${share.toFixed(0)}% accepted, ${ratio(gain, 1.5)}`);
  await engine.dispose();
}

async function main(): Promise<void> {
  const [path, kind, ...wanted] = process.argv.slice(2);
  const parts = wanted.length === 0 ? PARTS : wanted;
  if (path === undefined)
    throw new Error('Usage: npm run bench:serving -- MODEL [exact|fast] [PART…]');
  const options: EngineOptions = { precision: kind === 'fast' ? 'fast' : 'exact' };
  const engine = await Engine.start(path, options);
  const { backend, id } = engine.model;
  process.stdout.write(
    `${id}, ${options.precision}, ${backend.isa}, ${backend.threads} threads; ` +
      `${PROMPT_TOKENS} prompt tokens, ${ANSWER_TOKENS} generated\n`,
  );
  const prompts = Array.from({ length: 8 }, (_, i) => promptOf(engine.tokenizer, i, PROMPT_TOKENS));
  await checkAnswers(engine, prompts, await serve(engine, prompts, ANSWER_TOKENS));
  if (parts.includes('clients')) {
    const rates = await throughput(engine);
    besideLlamaCpp(engine, path, rates.get(8)!);
  }
  if (parts.includes('ninth')) await ninthClient(engine);
  if (parts.includes('prefix')) await sharedPrefix(engine);
  if (parts.includes('lookup')) await lookup(path, options, engine);
  await engine.dispose();
}

void main();
