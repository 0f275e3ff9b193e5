/** How a command ends: exit codes, the text of an error, and signals turned into a clean stop. */
import { CommanderError } from 'commander';
import { GqaError } from '../core/errors';

export const EXIT_OK = 0;
/** The operation failed. */
export const EXIT_FAILURE = 1;
/** The command line was wrong. */
export const EXIT_USAGE = 2;

/** Signals that end a command cleanly, with the number that a shell adds to 128. */
const STOP_SIGNALS = { SIGINT: 2, SIGTERM: 15 } as const;

/** Thrown by a command that a signal or a closed pipe stopped, after it has cleaned up. */
export class Stopped extends Error {
  constructor(readonly exitCode: number) {
    super('stopped');
  }
}

/** Set to 1 to print the stack of an error. */
function debugging(): boolean {
  return process.env.GQA_DEBUG === '1';
}

/** What goes to stderr for an error: one line, or its stack under GQA_DEBUG=1. */
export function errorText(error: unknown): string {
  if (!(error instanceof Error)) return `gqa: ${String(error)}`;
  if (debugging()) return `gqa: ${error.stack ?? error.message}`;
  const code = error instanceof GqaError ? `${error.code}: ` : '';
  const hint =
    error instanceof GqaError && error.code !== 'INTERNAL'
      ? ''
      : '\n(set GQA_DEBUG=1 for the stack)';
  return `gqa: ${code}${error.message}${hint}`;
}

/** The exit code of whatever a command threw; prints what is not yet printed. */
export function reportError(error: unknown): number {
  if (error instanceof Stopped) return error.exitCode;
  if (error instanceof CommanderError) {
    // Commander has printed the message. Only --help and --version leave with 0.
    return error.exitCode === 0 ? EXIT_OK : EXIT_USAGE;
  }
  process.stderr.write(`${errorText(error)}\n`);
  return EXIT_FAILURE;
}

/**
 * Runs `body` with a signal that SIGINT and SIGTERM abort. If it was aborted, throws Stopped with 128 + the signal's
 * number once body has returned or thrown. A second signal ends the process at once.
 */
export async function stoppable<T>(body: (signal: AbortSignal) => Promise<T>): Promise<T> {
  const controller = new AbortController();
  let exitCode = 0;
  const handlers = Object.entries(STOP_SIGNALS).map(([name, number]) => {
    const handler = () => {
      if (exitCode !== 0) process.exit(exitCode);
      exitCode = 128 + number;
      controller.abort();
    };
    process.on(name, handler);
    return { name, handler };
  });
  try {
    const result = await body(controller.signal);
    if (exitCode !== 0) throw new Stopped(exitCode);
    return result;
  } catch (error) {
    throw exitCode === 0 ? error : new Stopped(exitCode);
  } finally {
    for (const { name, handler } of handlers) process.off(name, handler);
  }
}
