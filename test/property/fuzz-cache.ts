/**
 * `npm run fuzz:cache`: random programs over the KV cache, as programs.test.ts has them, in large numbers, on both
 * backends.
 *
 *   GQA_FUZZ_PROGRAMS=20000   how many on each backend
 *   GQA_FUZZ_SEED=1           the same programs again; without it others each time
 *   GQA_BACKEND=js|native     one backend alone
 */
import { spawnSync } from 'node:child_process';
import { backend } from '../../lib';
import { checkPrograms } from './programs';

const PROGRAMS = Number(process.env.GQA_FUZZ_PROGRAMS ?? 20_000);
const SEED = Number(process.env.GQA_FUZZ_SEED ?? Date.now() % 2 ** 31);
/** Programs between two lines of progress; each has a seed of its own, so that it can be run again alone. */
const PART = 2_000;

function fuzz(): void {
  const { kind, isa } = backend();
  const start = performance.now();
  for (let done = 0, seed = SEED; done < PROGRAMS; done += PART, seed++) {
    const count = Math.min(PART, PROGRAMS - done);
    try {
      checkPrograms(count, seed);
    } catch (error) {
      console.error(`${kind} ${isa}: GQA_FUZZ_PROGRAMS=${count} GQA_FUZZ_SEED=${seed} fails`);
      throw error;
    }
    const seconds = (performance.now() - start) / 1000;
    const rate = Math.round((done + count) / seconds);
    console.log(
      `${kind} ${isa}: ${done + count} programs, ${seconds.toFixed(0)} s, ${rate} a second`,
    );
  }
}

function main(): void {
  if (process.env.GQA_BACKEND) return fuzz();
  console.log(`GQA_FUZZ_PROGRAMS=${PROGRAMS} GQA_FUZZ_SEED=${SEED}`);
  for (const kind of backend().kind === 'native' ? ['native', 'js'] : ['js']) {
    const own = { GQA_BACKEND: kind, GQA_ISA: kind === 'js' ? '' : (process.env.GQA_ISA ?? '') };
    const env = { ...process.env, ...own, GQA_FUZZ_SEED: String(SEED) };
    const { status } = spawnSync(process.execPath, [__filename], { stdio: 'inherit', env });
    if (status !== 0) process.exitCode = 1;
  }
}

main();
