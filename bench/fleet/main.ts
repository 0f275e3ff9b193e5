/**
 * A simulation, not a measurement: how requests find prefixes in fleets of up to 1,000 replicas, by the balancer's rule, with
 * and without a shared store, and what the loss of a replica costs.
 *
 *   npm run bench:fleet -- [--replicas 10,100,1000] [--requests 200] [--rate 0.35] [--applications 200] [--seed 1]
 */
import { Command } from 'commander';
import { Hashing, RoundRobin } from './routing';
import type { Router } from './routing';
import { REPLICA, simulate, STORE_BLOCKS } from './simulate';
import type { Outcome } from './simulate';
import { BLOCK, makeTrace, TRACE_ASSUMPTIONS } from './trace';
import type { Request } from './trace';

const BOUND = 1.25;

interface Options {
  replicas: string;
  requests: string;
  rate: string;
  applications: string;
  seed: string;
}

function routers(replicas: number): (() => Router)[] {
  return [
    () => new RoundRobin(),
    () => new Hashing(replicas, 'application'),
    () => new Hashing(replicas, 'application', BOUND),
    () => new Hashing(replicas, 'conversation'),
    () => new Hashing(replicas, 'conversation', BOUND),
  ];
}

const percent = (part: number): string => `${(100 * part).toFixed(1)} %`;
const seconds = (time: number): string => (time < 100 ? time.toFixed(2) : time.toFixed(0));

function row(cells: readonly (string | number)[]): void {
  console.log(`| ${cells.join(' | ')} |`);
}

function heading(cells: readonly string[]): void {
  row(cells);
  row(cells.map(() => '---'));
}

function cellsOf(plain: Outcome, lost: Outcome): (string | number)[] {
  const extra = lost.computedTokens - plain.computedTokens;
  return [
    percent(plain.cacheHits),
    percent(plain.storeHits),
    plain.fetched.toFixed(1),
    plain.spread.toFixed(2),
    percent(plain.utilisation),
    seconds(plain.median),
    seconds(plain.p99),
    lost.failed,
    extra,
  ];
}

function report(trace: readonly Request[], replicas: number): void {
  console.log(`\n${replicas} replicas, ${trace.length} requests\n`);
  const load = ['busiest / mean', 'utilisation', 'first token s, median', 'p99'];
  const lost = ['lost replica: failed', 'extra prompt tokens'];
  heading([
    'balancer',
    'store',
    'cache hits',
    'store hits',
    'blocks fetched per request',
    ...load,
    ...lost,
  ]);
  for (const make of routers(replicas)) {
    for (const store of [false, true]) {
      const run = (loss: boolean): Outcome =>
        simulate(trace, { replicas, router: make(), store, loss });
      row([make().name, store ? 'yes' : 'no', ...cellsOf(run(false), run(true))]);
    }
  }
}

function main(options: Options): void {
  const rate = Number(options.rate);
  console.log('A simulation. It assumes:\n');
  const { promptRate, outputRate, sequenceRate, fetchSeconds, cacheBlocks } = REPLICA;
  for (const line of [
    ...TRACE_ASSUMPTIONS,
    `${options.applications} applications; ${rate} requests a second for each replica; seed ${options.seed}.`,
    `A replica computes ${promptRate} prompt tokens a second, or ${outputRate} tokens of answers, ${sequenceRate} of one; one request's work after the other.`,
    `It keeps ${cacheBlocks} blocks of ${BLOCK} tokens, the store ${STORE_BLOCKS} for each replica, the least recently used leaving first; a block is fetched in ${1000 * fetchSeconds} ms.`,
    'The first third of the requests warms the caches; a replica, the busiest, is lost after two thirds; what it had in flight is asked again at once.',
    'Networks, the balancer and the store are never the limit: see the blocks fetched per request.',
  ]) {
    console.log(`- ${line}`);
  }
  for (const replicas of options.replicas.split(',').map(Number)) {
    const requests = Math.max(20_000, replicas * Number(options.requests));
    const shape = { applications: Number(options.applications), seed: Number(options.seed) };
    report(makeTrace({ requests, rate: rate * replicas, ...shape }), replicas);
  }
}

const command = new Command('bench:fleet')
  .option('--replicas <list>', 'sizes of fleets', '10,100,1000')
  .option('--requests <number>', 'requests per replica, 20,000 in all at least', '200')
  .option('--rate <number>', 'requests a second per replica', '0.35')
  .option('--applications <number>', 'system prompts', '200')
  .option('--seed <number>', 'of the trace', '1')
  .action(main);
command.parse();
