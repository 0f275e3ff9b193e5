/** A built package of any commit, kept under the user's cache so that a commit is built once. */
import { execFileSync } from 'node:child_process';
import {
  existsSync,
  mkdirSync,
  readFileSync,
  renameSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { join } from 'node:path';
import { packageRoot } from '../../lib/backend/package-root';

const root = packageRoot();

function git(...gitArguments: string[]): Buffer {
  return execFileSync('git', gitArguments, { cwd: root, maxBuffer: 2 ** 30 });
}

/** The full hash of what a user calls a commit. @throws where git knows none */
export function resolveCommit(name: string): string {
  try {
    return git('rev-parse', '--verify', '--quiet', '--end-of-options', `${name}^{commit}`)
      .toString()
      .trim();
  } catch {
    throw new Error(`expected a commit but received '${name}', which git does not know`);
  }
}

/** This checkout's dependencies serve a commit that locks the same; another gets its own. */
function addDependencies(folder: string): void {
  const lock = (at: string) => readFileSync(join(at, 'package-lock.json'), 'utf8');
  if (lock(folder) === lock(root))
    symlinkSync(join(root, 'node_modules'), join(folder, 'node_modules'));
  else execFileSync('npm', ['ci', '--ignore-scripts'], { cwd: folder, stdio: ['ignore', 2, 2] });
}

function compile(folder: string): void {
  const node = (script: string, ...scriptArguments: string[]) =>
    execFileSync(process.execPath, [script, ...scriptArguments], {
      cwd: folder,
      stdio: ['ignore', 2, 2],
    });
  node(join(folder, 'scripts', 'build.js'));
  node(
    join(folder, 'node_modules', 'cmake-js', 'bin', 'cmake-js'),
    ...['build', '--log-level', 'warn'],
  );
}

/**
 * The folder of the commit's package, compiled, addon and all.
 *
 * @throws where it does not compile
 */
export function builtCommit(commit: string, cache: string, say: (text: string) => void): string {
  const folder = join(cache, commit);
  const done = join(folder, '.built');
  if (existsSync(done)) return folder;
  say(`building ${commit.slice(0, 10)} in ${folder}`);
  const part = `${folder}.part`;
  for (const left of [folder, part]) rmSync(left, { recursive: true, force: true });
  mkdirSync(part, { recursive: true });
  execFileSync('tar', ['-x', '-C', part], { input: git('archive', commit) });
  renameSync(part, folder);
  addDependencies(folder);
  compile(folder);
  writeFileSync(done, '');
  return folder;
}
