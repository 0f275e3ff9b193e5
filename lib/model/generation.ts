/** One run of generate: an async iterator of pieces, with figures about the run. */
import { Detokenizer } from './detokenizer';
import type { ResolvedOptions } from './generate-options';
import type { FinishReason } from './runner';
import { StopStrings, type Piece } from './stop-strings';
import type { Tokenizer } from './tokenizer';
import type { RunningJob, TokenReply } from './worker-client';

export type { Piece } from './stop-strings';

export interface GenerationStats {
  promptTokens: number;
  /** From the start of the prompt's computation to the first token. */
  promptSeconds: number;
  promptTokensPerSecond: number;
  /** Tokens yielded. */
  tokens: number;
  /** From the first token to the last. */
  seconds: number;
  /** Over the tokens after the first, which the prompt's computation gave. */
  tokensPerSecond: number;
  /** Null while running. 'stop' is a stop string; 'cancelled' a break, an abort or an error. */
  finishReason: FinishReason | 'stop' | null;
  /** What would repeat this run. */
  seed: number;
}

export interface GenerationPlan extends ResolvedOptions {
  ids: readonly number[];
  tokenizer: Tokenizer;
  /** Sends the job to the worker. */
  submit(): RunningJob<FinishReason>;
}

/**
 * `for await (const { text, token } of model.generate(…))`. Nothing runs before the first next(); leaving the loop ends
 * the run. `text` is what became certain with the token, often a word, sometimes empty (within a character).
 */
export class Generation implements AsyncIterableIterator<Piece, undefined> {
  /** Complete once the loop has ended; before that, so far. */
  readonly stats: GenerationStats;
  private readonly pieces: AsyncGenerator<Piece, undefined>;

  /** @internal Use `model.generate()`. @param prepare makes the plan at the first next(); its errors reject that */
  constructor(prepare: () => GenerationPlan) {
    this.stats = emptyStats();
    this.pieces = runGeneration(prepare, this.stats);
  }

  next(): Promise<IteratorResult<Piece, undefined>> {
    return this.pieces.next();
  }

  return(): Promise<IteratorResult<Piece, undefined>> {
    return this.pieces.return(undefined);
  }

  throw(error: unknown): Promise<IteratorResult<Piece, undefined>> {
    return this.pieces.throw(error);
  }

  [Symbol.asyncIterator](): this {
    return this;
  }
}

async function* runGeneration(
  prepare: () => GenerationPlan,
  stats: GenerationStats,
): AsyncGenerator<Piece, undefined> {
  const plan = prepare();
  const { ids, tokenizer, stop, signal, sampling } = plan;
  stats.promptTokens = ids.length;
  stats.seed = sampling.seed;
  signal?.throwIfAborted();
  const job = plan.submit();
  const detokenizer = new Detokenizer(tokenizer, ids);
  const stops = new StopStrings(stop);
  const clock = new Clock(stats, job);
  try {
    for (
      let reply = await job.nextToken(signal);
      reply !== null;
      reply = await job.nextToken(signal)
    ) {
      clock.tick(reply);
      for (const piece of stops.push({ text: detokenizer.push(reply.token), token: reply.token })) {
        yield clock.count(piece);
      }
      if (stops.stopped) {
        stats.finishReason = 'stop';
        return undefined;
      }
    }
    for (const piece of stops.flush()) yield clock.count(piece);
    stats.finishReason = job.result ?? null;
  } finally {
    job.cancel();
    stats.finishReason ??= 'cancelled';
  }
  return undefined;
}

/** Keeps the figures up to date. */
class Clock {
  private firstAt = 0;

  constructor(
    private readonly stats: GenerationStats,
    private readonly job: RunningJob<FinishReason>,
  ) {}

  tick({ at }: TokenReply): void {
    const { stats } = this;
    if (this.firstAt === 0) {
      this.firstAt = at;
      stats.promptSeconds = (at - this.job.startedAt) / 1000;
      stats.promptTokensPerSecond = rate(stats.promptTokens, stats.promptSeconds);
    }
    stats.seconds = (at - this.firstAt) / 1000;
  }

  count(piece: Piece): Piece {
    this.stats.tokens++;
    this.stats.tokensPerSecond = rate(this.stats.tokens - 1, this.stats.seconds);
    return piece;
  }
}

function rate(count: number, seconds: number): number {
  return seconds > 0 ? count / seconds : 0;
}

function emptyStats(): GenerationStats {
  return {
    promptTokens: 0,
    promptSeconds: 0,
    promptTokensPerSecond: 0,
    tokens: 0,
    seconds: 0,
    tokensPerSecond: 0,
    finishReason: null,
    seed: 0,
  };
}
