/** Answers a request for text, whole or as events, in the form of either endpoint. */
import type { FastifyReply, FastifyRequest } from 'fastify';
import type { EnginePiece, EngineResult, EngineRun } from '../engine/types';
import { events, submit, usageOf, whole, type Usage, type WholeChoice } from './choices';
import { ClientGone, type ServerContext } from './context';
import { toApiError, unavailable } from './errors';
import { EventStream, ReaderStalled } from './event-stream';
import type { Job } from './requests';

/** How an endpoint says what comes. */
export interface AnswerForm {
  /** Whether tokens are part of the answer, not text alone. */
  readonly hasTokens: boolean;
  whole(choices: readonly WholeChoice[], usage: Usage): object;
  /** What a stream says of a choice before its first piece; null for nothing. */
  opening(index: number): object | null;
  piece(index: number, piece: EnginePiece): object;
  closing(index: number, result: EngineResult): object;
  /** The last event of a stream that was asked for its usage. */
  usage(usage: Usage): object;
}

/** An error of a run, as the client is told. */
function explain(context: ServerContext, error: unknown): unknown {
  if (error instanceof ClientGone || error instanceof ReaderStalled) return error;
  if (context.engine.stats().live) return error;
  return unavailable('The engine has died: the server needs a restart.', 'engine_dead');
}

async function sendEvents(
  context: ServerContext,
  { job, form, stream, signal }: Answering,
  runs: readonly EngineRun[],
): Promise<void> {
  const results: EngineResult[] = new Array<EngineResult>(runs.length);
  for await (const { index, piece, result } of events(context, runs)) {
    // The head waits for the first event: what fails before it still has a status of its own.
    if (!stream.begun) {
      stream.begin();
      for (let choice = 0; choice < runs.length; choice++) {
        const opening = form.opening(choice);
        if (opening !== null) await stream.send(opening, signal);
      }
    }
    if (result !== undefined) {
      results[index] = result;
      await stream.send(form.closing(index, result), signal);
    } else if (piece.text !== '' || (form.hasTokens && piece.tokens.length > 0)) {
      await stream.send(form.piece(index, piece), signal);
    }
  }
  if (job.includeUsage) await stream.send(form.usage(usageOf(job, results)), signal);
  await stream.send('[DONE]', signal);
  stream.end();
}

interface Answering {
  job: Job;
  form: AnswerForm;
  stream: EventStream;
  signal: AbortSignal;
}

/** A failure behind the head of a stream is its last event; clients know it by the field `error`. */
async function sendFailure(
  request: FastifyRequest,
  { stream }: Answering,
  error: unknown,
): Promise<void> {
  if (error instanceof ClientGone || error instanceof ReaderStalled) {
    request.log.info({ reason: error.message }, 'stream given up');
    return stream.destroy();
  }
  request.log.error(error, 'stream failed');
  try {
    await stream.send(toApiError(error).body, new AbortController().signal);
    stream.end();
  } catch {
    stream.destroy();
  }
}

function countFailure({ metrics }: ServerContext, error: unknown): void {
  const givenUp = error instanceof ClientGone || error instanceof ReaderStalled;
  metrics.ended(givenUp ? 'cancelled' : 'error');
}

/** The answer, or `reply` where it was streamed. @throws what comes before an answer has begun */
export async function answer(
  context: ServerContext,
  request: FastifyRequest,
  reply: FastifyReply,
  { job, form }: { job: Job; form: AnswerForm },
): Promise<unknown> {
  return context.answers.run(reply, async (signal) => {
    const stream = new EventStream(reply, context.options.stallTimeoutMs);
    const answering = { job, form, stream, signal };
    const runs = submit(context, job, signal);
    // Ended by the signal, which nobody may be waiting for by then.
    for (const run of runs) run.result.catch(() => undefined);
    try {
      if (job.stream) {
        await sendEvents(context, answering, runs);
        return reply;
      }
      const choices = await whole(context, runs, form.hasTokens);
      const results = choices.map(({ result }) => result);
      return form.whole(choices, usageOf(job, results));
    } catch (error) {
      const explained = explain(context, error);
      countFailure(context, explained);
      if (stream.begun) {
        await sendFailure(request, answering, explained);
        return reply;
      }
      throw explained;
    }
  });
}
