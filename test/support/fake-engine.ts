/**
 * An engine without a model: its answers follow from the prompt, and what is awkward (a queue that is full, a worker that
 * dies, an answer that waits) happens when a test says so.
 */
import { readFolderTokenizer } from '../../lib/model/tokenizer-folder';
import { createTokenizer, type EncodeOptions, type Tokenizer } from '../../lib/model/tokenizer';
import { GqaError } from '../../lib/core/errors';
import type {
  EngineLike,
  EngineModel,
  EnginePiece,
  EngineRequest,
  EngineResult,
  EngineRun,
  EngineStats,
  ResolvedRequest,
} from '../../lib/engine/types';
import { embeddedModel } from './package';

/** ChatML, as many models have it. */
const TEMPLATE =
  "{% for message in messages %}{{ '<|' + message['role'] + '|>' + message['content'] }}{% endfor %}";

interface Settle {
  resolve: (result: EngineResult) => void;
  reject: (error: Error) => void;
}

export class FakeEngine implements EngineLike {
  readonly tokenizer: Tokenizer;
  readonly model: EngineModel;
  /** What came, in order. */
  readonly requests: ResolvedRequest[] = [];
  /** Runs whose signal was aborted. */
  aborted = 0;
  live = true;
  /** Runs that may be under way; one more is QUEUE_FULL. */
  capacity = Infinity;
  /** Every run waits for this before each of its tokens from number `gateAt` on. */
  gate: Promise<void> = Promise.resolve();
  gateAt = 0;
  /** Thrown by every run in place of this token. */
  failure: { at: number; error: Error } | null = null;
  running = 0;

  constructor({ chat = true, contextLength = 512 } = {}) {
    const source = readFolderTokenizer(embeddedModel)!;
    this.tokenizer = createTokenizer({ ...source, chatTemplate: chat ? TEMPLATE : null });
    this.model = {
      id: 'fake',
      config: { vocabSize: 2048 } as EngineModel['config'],
      contextLength,
      backend: { kind: 'js', isa: 'js', threads: 1 } as EngineModel['backend'],
      bytes: 0,
      weights: { source: 'packed', path: null, reason: 'a fake has none' },
      createdAt: Date.now(),
    };
  }

  encode(text: string, options?: EncodeOptions): Promise<number[]> {
    return Promise.resolve().then(() => this.tokenizer.encode(text, options));
  }

  submit(request: EngineRequest): EngineRun {
    if (this.running >= this.capacity) {
      throw new GqaError('QUEUE_FULL', 'Expected fewer requests');
    }
    request.signal?.throwIfAborted();
    // A server leaves nothing to defaults.
    const whole = request as ResolvedRequest;
    this.requests.push(whole);
    this.running++;
    let ended = false;
    const end = () => {
      if (!ended) this.running--;
      ended = true;
    };
    const result = new Promise<EngineResult>((resolve, reject) => {
      request.signal?.addEventListener('abort', () => {
        if (!ended) this.aborted++;
        end();
        reject(request.signal!.reason as Error);
      });
      this.answer = { resolve, reject };
    });
    result.catch(() => undefined);
    result.then(end, end);
    const pieces = this.pieces(whole, result, this.answer!);
    return { result, [Symbol.asyncIterator]: () => pieces };
  }

  private answer: Settle | null = null;

  /** Answers with the prompt's ids from the end to the beginning, plus the seed where that is sampled by. */
  private async *pieces(
    { prompt, maxTokens, sampling, signal, logprobs }: ResolvedRequest,
    result: Promise<EngineResult>,
    { resolve, reject }: Settle,
  ): AsyncGenerator<EnginePiece> {
    const shift = sampling.temperature === 0 ? 0 : sampling.seed;
    let text = '';
    try {
      for (let i = 0; i < maxTokens; i++) {
        if (i >= this.gateAt) await Promise.race([this.gate, result]);
        signal?.throwIfAborted();
        if (this.failure?.at === i) throw this.failure.error;
        const id = 2 + ((prompt[prompt.length - 1 - (i % prompt.length)] + shift) % 2000);
        const token = { id, text: this.tokenizer.decode([id]), logprob: -i / 2 };
        const told = { ...token, bytes: Buffer.from(token.text) };
        text += token.text;
        const top = new Array(Math.max(logprobs, 0)).fill(told);
        yield { text: token.text, tokens: [{ ...told, top }] };
      }
      resolve({
        text,
        finishReason: 'length',
        stopString: null,
        usage: { promptTokens: prompt.length, completionTokens: maxTokens, cachedTokens: 1 },
        timings: { queuedMs: 0, promptMs: 1, firstTokenMs: 1, tokensPerSecond: 100 },
      });
    } catch (error) {
      reject(error as Error);
      throw error;
    }
  }

  stats(): EngineStats {
    return {
      live: this.live,
      running: this.running,
      waiting: 0,
      preempted: 0,
      promptTokens: 0,
      generatedTokens: 0,
      steps: 0,
      stepMs: 0,
      cache: { capacityTokens: 512, usedTokens: 0, sharedTokens: 0, hitTokens: 0, lookupTokens: 0 },
      speculation: { drafted: 0, accepted: 0 },
      store: null,
    };
  }

  async drain(): Promise<void> {
    while (this.running > 0) await new Promise((resolve) => setTimeout(resolve, 5));
  }

  dispose(): Promise<void> {
    this.live = false;
    return Promise.resolve();
  }
}
