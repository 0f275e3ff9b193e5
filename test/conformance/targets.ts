/** Which targets (a backend and an instruction set) the conformance suite must run on, judged without the package. */
import { existsSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { packageRoot } from '../../lib/backend/package-root';

/** 'js', 'scalar', or a row of native/targets/<arch>.gyp. */
export type Target = string;

const TARGET_FOLDER = join(packageRoot(), 'native', 'targets');
/** What /proc/cpuinfo calls features that compilers name otherwise, but for '-' and '_'. */
const CPUINFO_NAMES: Record<string, string> = { dotprod: 'asimddp', fp16: 'asimdhp' };

/** The vector targets of an architecture, narrowest first, with their compiler flags. */
export function vectorTargets(arch: string): Map<Target, string[]> {
  if (arch !== 'x64' && arch !== 'arm64') return new Map();
  const { targets } = JSON.parse(readFileSync(join(TARGET_FOLDER, `${arch}.gyp`), 'utf8')) as {
    targets: { target_name: string; variables: { flags: string[] } }[];
  };
  return new Map(targets.map((row) => [row.target_name, row.variables.flags]));
}

/** The CPU features that compiler flags ask for, as the compiler calls them: -mavx2, -march=armv8.2-a+dotprod. */
export function cpuFeatures(flags: readonly string[]): string[] {
  return flags.flatMap((flag) => {
    if (flag.startsWith('-march=')) return flag.split('+').slice(1);
    return flag.startsWith('-m') && !flag.includes('=') ? [flag.slice(2)] : [];
  });
}

/** Whether the CPU has what a target's compiler flags rely on: then the addon must run it. */
function cpuPromises(flags: readonly string[], cpu: ReadonlySet<string>): boolean {
  return cpuFeatures(flags).every((name) => cpu.has(CPUINFO_NAMES[name] ?? plainName(name)));
}

function plainName(feature: string): string {
  return feature.replaceAll(/[-_]/g, '');
}

/** GQA_TEST_TARGETS (a comma list) where set, as under emulation; else all that this machine's CPU can run. */
export function targetsToTest(): Target[] {
  const forced = process.env.GQA_TEST_TARGETS;
  if (forced !== undefined && forced !== '') return forced.split(',').map(checkTarget);
  const cpu = cpuinfoFlags();
  const promised = [...vectorTargets(process.arch)].filter(([, flags]) => cpuPromises(flags, cpu));
  return ['js', 'scalar', ...promised.map(([target]) => target)];
}

function checkTarget(name: string): Target {
  const target = name.trim();
  if (target !== 'js' && !existsSync(sourceOf(target))) throw new Error(`no such target: ${name}`);
  return target;
}

function sourceOf(target: Target): string {
  return join(TARGET_FOLDER, `${target}.cc`);
}

/** Only Linux states the flags in a file; elsewhere targets that need any must be named in GQA_TEST_TARGETS. */
function cpuinfoFlags(): Set<string> {
  if (process.platform !== 'linux') return new Set();
  const line = /^(?:flags|Features)\s*:\s*(.*)$/m.exec(readFileSync('/proc/cpuinfo', 'utf8'));
  return new Set(line === null ? [] : line[1].split(' ').map(plainName));
}

/** The environment that forces a target; the package must refuse it if it cannot be had. */
export function targetEnvironment(target: Target): Record<string, string> {
  return target === 'js'
    ? { GQA_BACKEND: 'js', GQA_ISA: '', GQA_THREADS: '', GQA_TEST_TARGET: target }
    : { GQA_BACKEND: 'native', GQA_ISA: target, GQA_TEST_TARGET: target };
}

/** The target this process was started for; undefined in a plain jest run, which takes the package's own choice. */
export function currentTarget(): Target | undefined {
  return process.env.GQA_TEST_TARGET;
}

/** Whether a target later in the list has the same vector type, and so nearly all of the code. */
export function hasWiderSibling(target: Target, targets: readonly Target[]): boolean {
  return targets
    .slice(targets.indexOf(target) + 1)
    .some((wider) => vectorType(wider) === vectorType(target));
}

/** The header of native/simd that a target is built on; of the JavaScript backend its name. */
function vectorType(target: Target): string {
  if (target === 'js') return target;
  const source = readFileSync(sourceOf(target), 'utf8');
  return /simd\/(\w+)\.h/.exec(source)![1];
}
