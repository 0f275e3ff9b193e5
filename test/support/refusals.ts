/** Refusals: a GqaError of one code that says what it is about. */
import { GqaError, type GqaErrorCode } from '../../lib';

/** The GqaError that action throws, or rejects with. */
export async function refusal(action: () => unknown): Promise<GqaError> {
  let result: unknown;
  try {
    result = await action();
  } catch (error) {
    if (error instanceof GqaError) return error;
    throw error;
  }
  throw new Error(`nothing was thrown, the result is ${String(result)}`);
}

/** Checks the code, and that the message names the argument, what was expected and what came. */
export async function expectRefused(
  code: GqaErrorCode,
  argument: string | RegExp,
  action: () => unknown,
): Promise<void> {
  const error = await refusal(action);
  expect([error.code, error.message]).toEqual([code, error.message]);
  if (typeof argument === 'string') expect(error.argument).toBe(argument);
  else expect(error.argument).toMatch(argument);
  expect(error.expected).toBeTruthy();
  expect(error.received).toBeTruthy();
  expect(error.message).toContain(error.argument);
  if (!error.message.startsWith('Expected')) return;
  for (const part of [error.expected, error.received]) {
    expect(error.message).toContain(part!.replace(/,$/, ''));
  }
}
