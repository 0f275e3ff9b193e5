/**
 * Token ids of texts. Short ones are computed here; longer ones, which would hold up the event loop (some 3 µs a
 * character), in a thread with a tokenizer of its own, which starts when the first of them comes.
 */
import { join } from 'node:path';
import { Worker } from 'node:worker_threads';
import { GqaError } from '../core/errors';
import type { EncodeOptions, Tokenizer } from '../model/tokenizer';
import { unpackError, type PlainError } from '../model/worker-protocol';

/** Characters: 2 to 3 ms. */
const SHORT = 1000;

export interface EncodeRequest {
  id: number;
  text: string;
  options: EncodeOptions;
}

export type EncodeReply = { id: number; ids: Int32Array } | { id: number; error: PlainError };

interface Waiting {
  resolve: (ids: number[]) => void;
  reject: (error: GqaError) => void;
}

export class Encoder {
  private thread: Worker | null = null;
  private nextId = 0;
  private disposed = false;
  private readonly waiting = new Map<number, Waiting>();

  /** `path`: the model that the tokenizer is of. */
  constructor(
    private readonly path: string,
    private readonly tokenizer: Tokenizer,
  ) {}

  /** @throws GqaError as Tokenizer.encode; DISPOSED; INTERNAL or OUT_OF_MEMORY where the thread ends meanwhile */
  async encode(text: string, options: EncodeOptions = {}): Promise<number[]> {
    if (this.disposed) throw disposedError();
    const { tokenizer } = this;
    // What is no text, or cannot be encoded, is refused there.
    if (typeof text !== 'string' || text.length <= SHORT || !tokenizer.available) {
      return tokenizer.encode(text, options);
    }
    const thread = (this.thread ??= this.start());
    if (this.waiting.size === 0) thread.ref();
    const id = this.nextId++;
    const result = new Promise<number[]>((resolve, reject) => {
      this.waiting.set(id, { resolve, reject });
    });
    thread.postMessage({ id, text, options } satisfies EncodeRequest);
    return result;
  }

  /** Texts that wait reject with DISPOSED. */
  async dispose(): Promise<void> {
    this.disposed = true;
    const { thread } = this;
    this.end(disposedError());
    await thread?.terminate();
  }

  private start(): Worker {
    const thread = new Worker(join(__dirname, 'encoder-worker.js'), {
      workerData: { path: this.path },
    });
    thread.on('message', (reply: EncodeReply) => this.receive(reply));
    const ended = (cause: Error): void => {
      // Another one may have begun since.
      if (this.thread !== thread) return;
      const message = `The tokenizer's thread ended: ${cause.message}`;
      this.end(new GqaError('INTERNAL', message, { cause }));
    };
    thread.on('error', ended);
    thread.on('exit', () => ended(new Error('it exited')));
    return thread;
  }

  private receive(reply: EncodeReply): void {
    const waiting = this.waiting.get(reply.id);
    this.waiting.delete(reply.id);
    if (this.waiting.size === 0) this.thread?.unref();
    if ('ids' in reply) waiting?.resolve(Array.from(reply.ids));
    else waiting?.reject(unpackError(reply.error));
  }

  private end(error: GqaError): void {
    this.thread = null;
    for (const { reject } of this.waiting.values()) reject(error);
    this.waiting.clear();
  }
}

function disposedError(): GqaError {
  return new GqaError('DISPOSED', 'This engine was disposed', { argument: 'engine' });
}
