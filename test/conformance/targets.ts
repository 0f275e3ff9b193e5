/** Which targets (a backend and an instruction set) the conformance suite must run on, judged without the package. */
import { readFileSync } from 'node:fs';

export type Target = 'js' | 'scalar' | 'avx2' | 'avx512' | 'avx512bf16' | 'neon';
const TARGETS: readonly Target[] = ['js', 'scalar', 'avx2', 'avx512', 'avx512bf16', 'neon'];

const AVX512 = ['avx512f', 'avx512bw', 'avx512vl', 'avx512dq', 'fma', 'f16c'];

/** Flags of /proc/cpuinfo that a target's compiler flags rely on. */
const X86_FLAGS: Partial<Record<Target, readonly string[]>> = {
  avx2: ['avx2', 'fma', 'f16c'],
  avx512: AVX512,
  avx512bf16: [...AVX512, 'avx512_vnni', 'avx512_bf16'],
};

/** GQA_TEST_TARGETS (a comma list) where set, as under emulation; else all that this machine's CPU can run. */
export function targetsToTest(): Target[] {
  const forced = process.env.GQA_TEST_TARGETS;
  if (forced !== undefined && forced !== '') return forced.split(',').map(asTarget);
  if (process.arch === 'arm64') return ['js', 'scalar', 'neon'];
  const flags = x86Flags();
  const vector = (['avx2', 'avx512', 'avx512bf16'] as const).filter((t) =>
    X86_FLAGS[t]!.every((flag) => flags.has(flag)),
  );
  return ['js', 'scalar', ...vector];
}

/** The environment that forces a target; the package must refuse it if it cannot be had. */
export function targetEnvironment(target: Target): Record<string, string> {
  return target === 'js'
    ? { GQA_BACKEND: 'js', GQA_ISA: '', GQA_THREADS: '', GQA_TEST_TARGET: target }
    : { GQA_BACKEND: 'native', GQA_ISA: target, GQA_TEST_TARGET: target };
}

/** The target this process was started for; undefined in a plain jest run, which takes the package's own choice. */
export function currentTarget(): Target | undefined {
  const name = process.env.GQA_TEST_TARGET;
  return name === undefined ? undefined : asTarget(name);
}

function asTarget(name: string): Target {
  const target = TARGETS.find((t) => t === name.trim());
  if (target === undefined)
    throw new Error(`no such target: ${name}; there are ${TARGETS.join(', ')}`);
  return target;
}

/** Only Linux states the flags in a file; elsewhere the x86 vector targets must be named in GQA_TEST_TARGETS. */
function x86Flags(): Set<string> {
  if (process.platform !== 'linux') return new Set();
  const line = /^flags\s*:\s*(.*)$/m.exec(readFileSync('/proc/cpuinfo', 'utf8'));
  return new Set(line === null ? [] : line[1].split(' '));
}
