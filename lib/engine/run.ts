/** One request as its reader sees it: tokens become text here, in the caller's thread, and stop strings end it. */
import { expectedError } from '../core/errors';
import { Detokenizer } from '../model/detokenizer';
import { StopStrings } from '../model/stop-strings';
import type { Tokenizer } from '../model/tokenizer';
import { unpackError } from '../model/worker-protocol';
import type { TokenLogprobs } from './logprobs';
import { clock, READ_AHEAD, type Progress, type WireEnd, type WireTokens } from './protocol';
import type {
  EnginePiece,
  EngineResult,
  EngineRun,
  GeneratedToken,
  ResolvedRequest,
  TokenAlternative,
} from './types';

/** What a run asks of the engine. */
export interface RunHooks {
  /** The worker need not go on with it. */
  cancel(): void;
  /** So many further tokens were read, or dropped. */
  read(tokens: number): void;
  /** It needs nothing more. */
  ended(): void;
}

interface Piece {
  text: string;
  tokens: GeneratedToken[];
}

/** The reader's progress is told in parts of what the worker may be ahead. */
const READ_STEP = READ_AHEAD / 4;

export class Run implements EngineRun {
  private readonly detokenizer: Detokenizer;
  private readonly stops: StopStrings<Piece>;
  /** What nobody has read yet. */
  private unread: Piece | null = null;
  private text = '';
  private received = 0;
  private toldRead = 0;
  private firstTokenAt = 0;
  private lastTokenAt = 0;
  private outcome: EngineResult | null = null;
  /** Why nothing more comes: a GqaError, or the reason of the request's signal. */
  private failure: { error: Error } | null = null;
  private iterated = false;
  private resultAsked = false;
  private readonly whole: Promise<EngineResult>;
  private wake: (() => void) | null = null;
  private settle!: { resolve(result: EngineResult): void; reject(error: unknown): void };
  private readonly onAbort = (): void => this.abort(this.request.signal!.reason);

  constructor(
    private readonly request: ResolvedRequest,
    private readonly tokenizer: Tokenizer,
    private readonly submittedAt: number,
    private readonly hooks: RunHooks,
  ) {
    this.detokenizer = new Detokenizer(tokenizer, request.prompt);
    this.stops = new StopStrings(request.stop);
    this.whole = new Promise((resolve, reject) => (this.settle = { resolve, reject }));
    // Who reads the pieces hears of it there.
    this.whole.catch(() => undefined);
    request.signal?.addEventListener('abort', this.onAbort, { once: true });
  }

  get result(): Promise<EngineResult> {
    this.resultAsked = true;
    if (this.readsItself) this.tellRead();
    if (this.outcome !== null && this.readsItself) this.settle.resolve(this.outcome);
    return this.whole;
  }

  [Symbol.asyncIterator](): AsyncIterator<EnginePiece, undefined> {
    this.iterated = true;
    return {
      next: async () => {
        for (;;) {
          if (this.failure !== null) throw this.failure.error;
          const piece = this.take();
          if (piece !== null) return { value: piece, done: false };
          if (this.outcome !== null) return { value: undefined, done: true };
          await new Promise<void>((resolve) => (this.wake = resolve));
        }
      },
      return: () => {
        this.abort(expectedError('CANCELLED', 'run', 'a reader to its end', 'one that left'));
        return Promise.resolve({ value: undefined, done: true });
      },
    };
  }

  /** @internal Tokens have come, which were chosen at this time. */
  push({ tokens, logprobs, progress }: WireTokens, at: number): void {
    if (this.ended) return;
    this.firstTokenAt ||= at;
    this.lastTokenAt = at;
    for (let i = 0; i < tokens.length && !this.stops.stopped; i++) {
      this.received++;
      const token = this.tokenOf(tokens[i], logprobs[i]);
      const text = this.detokenizer.push(tokens[i]);
      this.add(this.stops.push({ text, tokens: [token] }));
    }
    if (this.stops.stopped) {
      this.hooks.cancel();
      this.finish('stop', this.stops.found, progress);
    } else {
      this.tellRead();
    }
  }

  /** @internal The worker has ended it. */
  close({ reason, endId, error, progress }: WireEnd): void {
    if (this.ended) return;
    if (error !== null) {
      this.fail(unpackError(error));
      return;
    }
    this.add(this.stops.flush());
    const isStop = (text: string): boolean => this.tokenizer.specialTokenId(text) === endId;
    const named = endId !== null && this.tokenizer.available;
    const stop = named ? this.request.stop.find(isStop) : undefined;
    this.finish(reason === 'end' ? 'stop' : 'length', stop ?? null, progress);
  }

  /** @internal Nothing more comes: the reader's next() and `result` reject. */
  fail(error: unknown): void {
    if (this.ended) return;
    this.failure = { error: error as Error };
    this.end();
    this.settle.reject(error);
  }

  /** Only the result is wanted: nothing waits for a reader of pieces. */
  private get readsItself(): boolean {
    return this.resultAsked && !this.iterated;
  }

  private get ended(): boolean {
    return this.outcome !== null || this.failure !== null;
  }

  /** The reader does not want the rest. */
  private abort(reason: unknown): void {
    if (!this.ended) this.hooks.cancel();
    this.fail(reason);
    this.unread = null;
    // Of an answer that had come whole, and was not read to its end.
    this.settle.reject(reason);
  }

  private finish(
    finishReason: EngineResult['finishReason'],
    stopString: string | null,
    { startedAt, cachedTokens, drafted, accepted }: Progress,
  ): void {
    const { submittedAt, firstTokenAt, lastTokenAt, received } = this;
    const first = firstTokenAt || clock();
    this.outcome = {
      text: this.text,
      finishReason,
      stopString,
      usage: {
        promptTokens: this.request.prompt.length,
        completionTokens: received,
        cachedTokens,
      },
      timings: {
        queuedMs: startedAt - submittedAt,
        promptMs: first - startedAt,
        firstTokenMs: first - submittedAt,
        tokensPerSecond: received > 1 ? ((received - 1) * 1000) / (lastTokenAt - first) : 0,
      },
      ...(drafted > 0 && { speculation: { drafted, accepted } }),
    };
    this.end();
    if (this.unread === null || this.readsItself) this.settle.resolve(this.outcome);
  }

  private end(): void {
    this.request.signal?.removeEventListener('abort', this.onAbort);
    this.hooks.ended();
    this.wakeReader();
  }

  private add(pieces: readonly Piece[]): void {
    for (const { text, tokens } of pieces) {
      this.text += text;
      this.unread ??= { text: '', tokens: [] };
      this.unread.text += text;
      this.unread.tokens.push(...tokens);
    }
    if (pieces.length > 0) this.wakeReader();
  }

  /** All that has come since the last call. */
  private take(): EnginePiece | null {
    const piece = this.unread;
    this.unread = null;
    if (this.outcome !== null) this.settle.resolve(this.outcome);
    else if (piece !== null) this.tellRead();
    return piece;
  }

  /** What is neither unread nor on its way: tokens whose text is held back count as read. */
  private tellRead(): void {
    if (this.ended) return;
    const unread = this.readsItself ? 0 : (this.unread?.tokens.length ?? 0);
    const read = this.received - unread;
    if (read - this.toldRead < READ_STEP) return;
    this.hooks.read(read - this.toldRead);
    this.toldRead = read;
  }

  private wakeReader(): void {
    this.wake?.();
    this.wake = null;
  }

  private tokenOf(id: number, logprobs: TokenLogprobs | undefined): GeneratedToken {
    const alternative = (other: number, logprob: number): TokenAlternative => {
      const bytes = this.tokenBytes(other);
      return { id: other, text: bytes.toString('utf8'), bytes, logprob };
    };
    if (logprobs === undefined) return { ...alternative(id, NaN), top: [] };
    const top = logprobs.ids.map((other, i) => alternative(other, logprobs.logprobs[i]));
    return { ...alternative(id, logprobs.chosen), top };
  }

  private tokenBytes(id: number): Buffer {
    return this.tokenizer.available ? Buffer.from(this.tokenizer.tokenBytes(id)) : Buffer.alloc(0);
  }
}
