/** Runs the compiled command line in a process of its own. */
import { spawn, spawnSync, type SpawnSyncReturns } from 'node:child_process';
import { resolve } from 'node:path';
import { compiledRoot, nodeCommand } from '../../support/child';

const [node, ...nodeArguments] = nodeCommand();
const COMMAND = [...nodeArguments, resolve(compiledRoot, 'lib/cli/main.js')];

interface RunOptions {
  env?: Record<string, string>;
  input?: string;
}

export function gqa(args: string[], { env, input }: RunOptions = {}): SpawnSyncReturns<string> {
  return spawnSync(node, [...COMMAND, ...args], {
    encoding: 'utf8',
    env: { ...process.env, ...env },
    input: input ?? '',
    timeout: 120_000,
  });
}

/** Starts the command, calls `onFirstText` once when stdout has its first piece, resolves at the command's end. */
export function gqaStreaming(
  args: string[],
  onFirstText: (child: ReturnType<typeof spawn>) => void,
  env: Record<string, string> = {},
): Promise<{ status: number | null; signal: string | null; stdout: string; stderr: string }> {
  const child = spawn(node, [...COMMAND, ...args], {
    stdio: ['ignore', 'pipe', 'pipe'],
    env: { ...process.env, ...env },
  });
  let stdout = '';
  let stderr = '';
  child.stderr.setEncoding('utf8').on('data', (text: string) => (stderr += text));
  child.stdout.setEncoding('utf8').on('data', (text: string) => {
    stdout += text;
    if (stdout.length === text.length) onFirstText(child);
  });
  return new Promise((done) => {
    child.on('close', (status, signal) => done({ status, signal, stdout, stderr }));
  });
}
