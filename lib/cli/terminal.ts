/** Results go to stdout, everything said about them to stderr; colour and rewriting of a line only on a terminal. */
import { EXIT_OK } from './exit';

const CLEAR_LINE = '\r\x1b[2K';
const DIM = '\x1b[2m';
const RESET = '\x1b[0m';

/** Resolves once the text is handed to the system, so that a slow reader slows the writer. */
export function print(text: string): Promise<void> {
  return new Promise((resolve) => {
    process.stdout.write(text, () => resolve());
  });
}

/**
 * A reader that closes the pipe (`gqa generate | head`) has all it wants: leave quietly, with success. Other errors of
 * the two streams are real.
 */
export function leaveWhenPipeCloses(): void {
  for (const stream of [process.stdout, process.stderr]) {
    stream.on('error', (error: NodeJS.ErrnoException) => {
      if (error.code === 'EPIPE') process.exit(EXIT_OK);
      throw error;
    });
  }
}

/** Status on stderr. A passing state is shown on a terminal only; notes are kept lines everywhere. */
export class Status {
  private shown = false;
  private readonly terminal = process.stderr.isTTY === true;

  /** Replaces the passing state. */
  update(text: string): void {
    if (!this.terminal) return;
    const width = process.stderr.columns ?? 80;
    process.stderr.write(`${CLEAR_LINE}${this.dim(text.slice(0, width - 1))}`);
    this.shown = true;
  }

  clear(): void {
    if (this.shown) process.stderr.write(CLEAR_LINE);
    this.shown = false;
  }

  note(text: string): void {
    this.clear();
    process.stderr.write(`${this.dim(text)}\n`);
  }

  private dim(text: string): string {
    return this.terminal && !process.env.NO_COLOR ? `${DIM}${text}${RESET}` : text;
  }
}
