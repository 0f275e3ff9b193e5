/** What a test says about an error: its code and the argument's name, and that the message is complete. */
import { GqaError } from '../../lib';

/** "CODE argument" of the error that `run` throws; fails where it throws none or another kind. */
export function errorOf(run: () => unknown): string {
  try {
    run();
  } catch (error) {
    return describeError(error);
  }
  return 'nothing was thrown';
}

export async function rejectionOf(promise: Promise<unknown>): Promise<string> {
  return promise.then(
    () => 'nothing was thrown',
    (error: unknown) => describeError(error),
  );
}

function describeError(error: unknown): string {
  if (!(error instanceof GqaError)) throw error;
  const { code, argument, expected, received, message } = error;
  for (const part of [argument, expected, received]) {
    if (part === undefined || !message.includes(part)) throw error;
  }
  return `${code} ${argument!}`;
}
