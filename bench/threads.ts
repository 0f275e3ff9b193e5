/**
 * How soon a second thread works on a call, after pauses of JavaScript as between the calls of a decode step and longer.
 *
 *   npm run bench:threads         fails at a median of 5 microseconds or more where calls come in a stream
 */
import { getBackend } from '../lib/backend';

const BAR_MICROSECONDS = 5;

/** Pauses in microseconds, evenly spread between the two; `warm` where threads should still be awake. */
const STREAMS = [
  { name: '1 to 50 us, as in a decode step', from: 1, to: 50, calls: 4000, warm: true },
  { name: '20 us', from: 20, to: 20, calls: 2000, warm: true },
  { name: '100 us', from: 100, to: 100, calls: 1000, warm: true },
  { name: '1 ms', from: 1000, to: 1000, calls: 200, warm: false },
  { name: '10 ms', from: 10_000, to: 10_000, calls: 50, warm: false },
];

function pause(microseconds: number): void {
  const end = performance.now() + microseconds / 1e3;
  while (performance.now() < end);
}

/** A low-discrepancy sequence over [0, 1). */
const spread = (i: number): number => (i * 0.618033988749895) % 1;

function main(): void {
  const backend = getBackend();
  const { isa, threads, reason } = backend.info;
  console.log(`${backend.info.kind} ${isa}, ${threads} threads (${reason})`);
  if (threads < 2) {
    console.log('one thread: nothing to wake');
    return;
  }
  let within = true;
  for (const { name, from, to, calls, warm } of STREAMS) {
    const came: number[] = [];
    for (let i = 0; i < calls; i++) {
      pause(from + (to - from) * spread(i));
      const seconds = backend.probeWake();
      if (seconds !== null) came.push(seconds * 1e6);
    }
    came.sort((a, b) => a - b);
    const at = (p: number) => came[Math.floor((came.length - 1) * p)];
    const ok = !warm || (came.length > calls / 2 && at(0.5) < BAR_MICROSECONDS);
    within &&= ok;
    const figures =
      came.length === 0
        ? 'no second thread'
        : `second thread after ${at(0.5).toFixed(2)} us (p10 ${at(0.1).toFixed(2)}, p90 ${at(0.9).toFixed(2)})`;
    const bar = warm ? `, bar < ${BAR_MICROSECONDS} us${ok ? '' : '  FAILED'}` : '';
    console.log(`pauses of ${name}: ${figures}, ${came.length} of ${calls} calls${bar}`);
  }
  process.exitCode = within ? 0 : 1;
}

main();
