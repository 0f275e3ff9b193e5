/**
 * Measures architectures on a backend, in a process of its own, for a process has one backend:
 *   node dist/test/support/architecture-figures.js NAME[=PATH]...
 * prints { NAME: figures, or the code and message of an error }, of the golden's own checkpoint or of the one at PATH.
 */
import { spawnSync } from 'node:child_process';
import { GqaError } from '../../lib/core/errors';
import { nodeCommand } from './child';
import { measureArchitecture, type ArchitectureFigures } from './golden-architectures';

export interface ArchitectureFailure {
  code: string;
  message: string;
}

export type ArchitectureResult = ArchitectureFigures | ArchitectureFailure;

export function figuresOn(
  backend: 'native' | 'js',
  names: readonly string[],
): Record<string, ArchitectureResult> {
  const [command, ...prefix] = nodeCommand();
  const { status, stdout, stderr } = spawnSync(command, [...prefix, __filename, ...names], {
    encoding: 'utf8',
    env: { ...process.env, GQA_BACKEND: backend },
    maxBuffer: 2 ** 26,
  });
  if (status !== 0) throw new Error(`measuring ended with ${status}\n${stderr}\n${stdout}`);
  return JSON.parse(stdout) as Record<string, ArchitectureResult>;
}

function measure(name: string, path?: string): ArchitectureResult {
  try {
    return measureArchitecture(name, path);
  } catch (error) {
    const code = error instanceof GqaError ? error.code : 'UNTYPED';
    return { code, message: (error as Error).message };
  }
}

if (require.main === module) {
  const results = process.argv.slice(2).map((argument) => {
    const [name, path] = argument.split(/=(.*)/s);
    return [name, measure(name, path)] as const;
  });
  console.log(JSON.stringify(Object.fromEntries(results)));
}
