/** Loads the addon; no other file does. */
import { existsSync, readdirSync } from 'node:fs';
import { createRequire } from 'node:module';
import { join, relative } from 'node:path';
import { compareTags, matchTags, parseTags } from 'node-gyp-build';
import { GqaError } from '../core/errors';
import type { Addon, AddonInfo } from './addon';
import { NativeBackend } from './native-backend';
import { packageRoot } from './package-root';
import { PARAMETER_VERSION } from './parameters';

export type LoadResult = { backend: NativeBackend } | { failures: string[] };

/**
 * Tries build/Release/gqa.node, then this system's prebuild, below GQA_PREBUILD where that is set, else the package.
 * Throws BACKEND_UNAVAILABLE where GQA_ISA or GQA_THREADS names what the addon cannot give.
 */
export function loadNativeBackend(): LoadResult {
  const root = process.env.GQA_PREBUILD || packageRoot();
  const failures: string[] = [];
  for (const file of [join(root, 'build', 'Release', 'gqa.node'), prebuiltFile(root)]) {
    const origin = relative(packageRoot(), file);
    const attempt = existsSync(file) ? loadFile(file) : 'not there';
    if (typeof attempt !== 'string') {
      const info = attempt.info();
      requireForcedChoices(info);
      return { backend: new NativeBackend(attempt, info, origin) };
    }
    failures.push(`${origin}: ${attempt}`);
  }
  return { failures };
}

/** The addon, or what went wrong. */
function loadFile(file: string): Addon | string {
  try {
    const addon = createRequire(__filename)(file) as Addon;
    return addon.parameterVersion === PARAMETER_VERSION ? addon : 'built from other sources';
  } catch (error) {
    return String(error).split('\n', 1)[0];
  }
}

/** The file that fits best in prebuilds/<platform>-<arch>, or the name it should have. */
function prebuiltFile(root: string): string {
  const folder = join(root, 'prebuilds', `${process.platform}-${process.arch}`);
  const files = existsSync(folder) ? readdirSync(folder) : [];
  const [best] = files
    .map(parseTags)
    .filter((tags) => tags !== undefined)
    .filter(matchTags('node', process.versions.modules))
    .sort(compareTags('node'));
  return join(folder, best?.file ?? 'gqa.node');
}

/** The addon reads both variables once per process: an isolate that asks for something else must not run. */
function requireForcedChoices(info: AddonInfo): void {
  const { GQA_ISA: isa, GQA_THREADS: threads } = process.env;
  let error = info.error;
  if (error === '' && isa && isa !== info.isa) {
    error = `GQA_ISA=${isa} cannot be had: this process already runs ${info.isa}`;
  }
  if (error === '' && threads && Number(threads) !== info.threads) {
    error = `GQA_THREADS=${threads} cannot be had: this process already runs ${info.threads} threads`;
  }
  if (error !== '') throw new GqaError('BACKEND_UNAVAILABLE', error);
}
