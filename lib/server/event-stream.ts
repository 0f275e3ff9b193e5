/** Server-sent events over a response, no faster than its reader takes them. */
import type { ServerResponse } from 'node:http';
import type { FastifyReply } from 'fastify';

/** The reader took nothing for too long. */
export class ReaderStalled extends Error {
  constructor(milliseconds: number) {
    super(`the client took nothing of its stream for ${milliseconds} ms`);
  }
}

export class EventStream {
  private readonly raw: ServerResponse;

  constructor(
    private readonly reply: FastifyReply,
    private readonly stallTimeoutMs: number,
  ) {
    this.raw = reply.raw;
  }

  get begun(): boolean {
    return this.raw.headersSent;
  }

  /** Sends the head with what `reply` has by way of headers. */
  begin(): void {
    this.reply.hijack();
    for (const [name, value] of Object.entries(this.reply.getHeaders())) {
      if (value !== undefined) this.raw.setHeader(name, value);
    }
    this.raw.writeHead(200, {
      'content-type': 'text/event-stream; charset=utf-8',
      'cache-control': 'no-cache',
      // nginx would hold events back until a buffer is full.
      'x-accel-buffering': 'no',
    });
  }

  /**
   * Resolves once there is room for more.
   * @throws ReaderStalled; the reason of `signal` once that is aborted
   */
  async send(data: object | '[DONE]', signal: AbortSignal): Promise<void> {
    signal.throwIfAborted();
    const text = typeof data === 'string' ? data : JSON.stringify(data);
    if (!this.raw.write(`data: ${text}\n\n`)) await this.room(signal);
  }

  end(): void {
    this.raw.end();
  }

  /** Closes the connection without the end of the answer: the client must not take it for whole. */
  destroy(): void {
    this.raw.destroy();
  }

  private room(signal: AbortSignal): Promise<void> {
    return new Promise((resolve, reject) => {
      const settle = (finish: () => void) => {
        clearTimeout(timer);
        this.raw.off('drain', onDrain);
        signal.removeEventListener('abort', onAbort);
        finish();
      };
      const onDrain = () => settle(resolve);
      const onAbort = () => settle(() => reject(signal.reason as Error));
      const stalled = new ReaderStalled(this.stallTimeoutMs);
      const timer = setTimeout(() => settle(() => reject(stalled)), this.stallTimeoutMs);
      this.raw.on('drain', onDrain);
      signal.addEventListener('abort', onAbort);
    });
  }
}
