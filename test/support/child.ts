/** Runs small programs in Node processes of their own: for exit codes, environment variables and teardown. */
import { spawnSync } from 'node:child_process';
import { resolve } from 'node:path';

/** The compiled tree this file is in: dist/. */
export const compiledRoot = resolve(__dirname, '../..');
/** The compiled library, as `require` in a child takes it. */
export const libraryPath = resolve(compiledRoot, 'lib/index.js');

/** The command that starts Node; GQA_TEST_NODE puts an emulator before it. */
export function nodeCommand(): string[] {
  const forced = process.env.GQA_TEST_NODE;
  return forced === undefined || forced === '' ? [process.execPath] : forced.split(' ');
}

export interface ChildResult {
  /** Exit status; null where a signal (a crash) ended the process. */
  status: number | null;
  signal: NodeJS.Signals | null;
  stdout: string;
  stderr: string;
}

/** Runs `program` (CommonJS; `gqa` is the library) and waits for its end, 120 s at most. */
export function runProgram(program: string, env: Record<string, string> = {}): ChildResult {
  const [command, ...prefix] = nodeCommand();
  const source = `const gqa = require(${JSON.stringify(libraryPath)});\n${program}`;
  const result = spawnSync(command, [...prefix, '--expose-gc', '-e', source], {
    encoding: 'utf8',
    env: { ...process.env, ...env },
    timeout: 120_000,
    maxBuffer: 64 * 2 ** 20,
  });
  const { status, signal, stdout, stderr } = result;
  return { status, signal, stdout, stderr };
}

/** As runProgram, but the program must exit with 0; returns what it printed. */
export function printed(program: string, env: Record<string, string> = {}): string {
  const { status, signal, stdout, stderr } = runProgram(program, env);
  if (status !== 0) throw new Error(`child ended with ${status ?? signal}\n${stderr}\n${stdout}`);
  return stdout;
}
