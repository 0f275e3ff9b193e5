/** How tests take and judge gradients. */
import { expectClose } from './compare';
import type { Numbers } from './numbers';

/** Slack behind an output: nothing may be written there. */
const SLACK = 16;

/** An array for a result, full of what a kernel must overwrite. */
export function result(count: number): Float32Array {
  return new Float32Array(count + SLACK).fill(77).subarray(0, count);
}

export function expectGradient(
  what: string,
  actual: Float32Array,
  expected: Numbers,
  most: number,
): void {
  const largest = Array.from(expected).reduce((m, x) => Math.max(m, Math.abs(x)), 0) || 1;
  const relative = (x: Numbers) => Array.from(x, (y) => y / largest);
  expectClose(what, relative(actual), relative(expected), most);
  const slack = new Float32Array(actual.buffer, 4 * actual.length);
  expect(slack.every((x) => x === 77)).toBe(true);
}
