/** The prompt of a command: its argument, or standard input where the argument is '-'. */
import { addAbortSignal } from 'node:stream';
import { text } from 'node:stream/consumers';

export const STDIN = '-';

/** One trailing line break is dropped: `echo` puts it there, nobody means it. Rejects when the signal is aborted. */
export async function readPrompt(argument: string, signal: AbortSignal): Promise<string> {
  if (argument !== STDIN) return argument;
  return (await text(addAbortSignal(signal, process.stdin))).replace(/\r?\n$/, '');
}
