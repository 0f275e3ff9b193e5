/**
 * Chooses the backend, once per isolate: native where an addon loads, else JavaScript.
 *
 * GQA_BACKEND=native|js, GQA_ISA=<instruction set>, GQA_THREADS=<n> and GQA_PREBUILD=<folder of build/ or prebuilds/>
 * force a choice; an empty value counts as unset. A forced choice that cannot be had throws, it is never replaced.
 */
import { createRequire } from 'node:module';
import { join } from 'node:path';
import { GqaError } from '../core/errors';
import type { Backend, BackendInfo } from './contract';
import { createJsBackend } from './js';
import { loadNativeBackend } from './native';
import { packageRoot } from './package-root';

export type * from './contract';

let chosen: Backend | undefined;

/** The backend of this isolate. Throws BACKEND_UNAVAILABLE where a forced choice cannot be had. */
export function getBackend(): Backend {
  return (chosen ??= chooseBackend());
}

/** Which backend runs, on which instruction set and how many threads, and why. */
export function backend(): BackendInfo {
  return getBackend().info;
}

function chooseBackend(): Backend {
  const kind = process.env.GQA_BACKEND || undefined;
  if (kind === 'js') return chooseJs('GQA_BACKEND=js');
  if (kind !== undefined && kind !== 'native') {
    throw unavailable(`GQA_BACKEND=${kind} is neither native nor js`);
  }
  const native = loadNativeBackend();
  if ('backend' in native) return native.backend;
  const reason = `no native addon loads (${native.failures.join('; ')}); ${remedy()}`;
  if (kind === 'native') throw unavailable(`GQA_BACKEND=native cannot be had: ${reason}`);
  if (process.env.GQA_PREBUILD) {
    throw unavailable(`GQA_PREBUILD=${process.env.GQA_PREBUILD} cannot be had: ${reason}`);
  }
  return chooseJs(reason);
}

/** The JavaScript backend has one thread and no instruction set to choose. */
function chooseJs(reason: string): Backend {
  const { GQA_ISA: isa, GQA_THREADS: threads } = process.env;
  if (isa) throw unavailable(`GQA_ISA=${isa} cannot be had on the JavaScript backend: ${reason}`);
  if (threads && threads !== '1') {
    throw unavailable(
      `GQA_THREADS=${threads} cannot be had on the JavaScript backend, which has one thread: ${reason}`,
    );
  }
  return createJsBackend(reason);
}

function unavailable(message: string): GqaError {
  return new GqaError('BACKEND_UNAVAILABLE', message);
}

/** How to get a native addon here: which tools are missing, or that nothing stands in the way. */
function remedy(): string {
  // The install step runs before anything is compiled, so what both share is plain JavaScript.
  const file = join(packageRoot(), 'scripts', 'toolchain.js');
  const toolchain = createRequire(__filename)(file) as { buildObstacle(): string | null };
  const obstacle = toolchain.buildObstacle();
  return obstacle === null
    ? 'one can be built: run `npm rebuild gqa` (in a clone: `npm run build:native`)'
    : `none can be built: ${obstacle}`;
}
