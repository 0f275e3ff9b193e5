/** A made-up, seeded trace of conversations: who asks when, with how many tokens, and what of the prompt others have too. */
import { SeededRandom } from '../../lib/core/random';

export interface TraceShape {
  /** Requests in all. */
  requests: number;
  /** Per second, of the whole fleet. */
  rate: number;
  /** Applications, each with a system prompt that all its conversations begin with. */
  applications: number;
  seed: number;
}

export interface Request {
  /** Seconds. */
  time: number;
  application: number;
  conversation: number;
  /** Whole blocks of the prompt that all conversations of the application begin with, and those of the conversation. */
  commonBlocks: number;
  ownBlocks: number;
  /** Tokens of the prompt behind its last whole block. */
  restTokens: number;
  outputTokens: number;
}

export const BLOCK = 64;
/** Popularity of applications: Zipf's law with this exponent. */
const POPULARITY = 1;
const MEAN_TURNS = 5;
const MEAN_PAUSE = 20;
const CONTEXT = 8192;
/** Medians of log-normal lengths in tokens, and the spread of their logarithm. */
const LENGTHS = {
  system: { median: 800, spread: 0.8 },
  question: { median: 60, spread: 1 },
  answer: { median: 150, spread: 0.7 },
};

export const TRACE_ASSUMPTIONS = [
  `Conversations begin as a Poisson process; turns: geometric, ${MEAN_TURNS} on average; a reader takes ${MEAN_PAUSE} s on average (exponential) to answer.`,
  `Each belongs to an application by Zipf's law (exponent ${POPULARITY}) and begins with its system prompt.`,
  `Tokens, log-normal: system prompts ${LENGTHS.system.median} (median), questions ${LENGTHS.question.median}, answers ${LENGTHS.answer.median}; a turn's prompt is all that came before; a context of ${CONTEXT}.`,
];

class Draws {
  private readonly random: SeededRandom;

  constructor(seed: number) {
    this.random = new SeededRandom(seed);
  }

  uniform(): number {
    return this.random.uniform();
  }

  exponential(mean: number): number {
    return -mean * Math.log(1 - this.uniform());
  }

  /** At least 1. */
  length({ median, spread }: { median: number; spread: number }): number {
    const radius = Math.sqrt(-2 * Math.log(1 - this.uniform()));
    const normal = radius * Math.cos(2 * Math.PI * this.uniform());
    return Math.max(1, Math.round(median * Math.exp(spread * normal)));
  }
}

/** Which of `count` by Zipf's law: cumulative shares. */
function zipf(count: number): Float64Array {
  const shares = Float64Array.from({ length: count }, (_, i) => (i + 1) ** -POPULARITY);
  const sum = shares.reduce((a, b) => a + b, 0);
  let total = 0;
  return shares.map((share) => (total += share / sum));
}

/** Requests in the order of time, of exactly as many as asked. */
export function makeTrace({ requests, rate, applications, seed }: TraceShape): Request[] {
  const draws = new Draws(seed);
  const shares = zipf(applications);
  const system = shares.map(() => draws.length(LENGTHS.system));
  const all: Request[] = [];
  let start = 0;
  for (let conversation = 0; all.length < requests * 1.2; conversation++) {
    start += draws.exponential(MEAN_TURNS / rate);
    const chance = draws.uniform();
    const application = Math.max(
      0,
      shares.findIndex((share) => chance < share),
    );
    addTurns(all, draws, { application, conversation, system: system[application] }, start);
  }
  return all.sort((a, b) => a.time - b.time).slice(0, requests);
}

function addTurns(
  all: Request[],
  draws: Draws,
  of: { application: number; conversation: number; system: number },
  start: number,
): void {
  const { application, conversation, system } = of;
  const commonBlocks = Math.floor(system / BLOCK);
  let tokens = system;
  for (let time = start; ; time += draws.exponential(MEAN_PAUSE)) {
    const outputTokens = draws.length(LENGTHS.answer);
    tokens += draws.length(LENGTHS.question);
    if (tokens + outputTokens > CONTEXT) return;
    const ownBlocks = Math.floor(tokens / BLOCK) - commonBlocks;
    const restTokens = tokens % BLOCK;
    const blocks = { commonBlocks, ownBlocks, restTokens };
    all.push({ time, application, conversation, ...blocks, outputTokens });
    tokens += outputTokens;
    if (draws.uniform() < 1 / MEAN_TURNS) return;
  }
}
