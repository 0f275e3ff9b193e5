/**
 * How free attentionAsync leaves the event loop: the worst lateness of a 1 ms timer while a prefill of 4,096 tokens
 * runs, against that of an idle wait of the same length.
 *
 *   npm run bench:loop            fails where it is more than 10 ms later in more than 1 of 10 runs
 */
import { setTimeout as wait } from 'node:timers/promises';
import { attentionAsync, backend, Tensor } from '../lib';

const RUNS = 10;
const RUNS_TO_PASS = 9;
const BAR_MILLISECONDS = 10;
const TIMER_MILLISECONDS = 1;
const TOKENS = 4096;

/** JavaScript takes a smaller problem: the bar is about the event loop, not about speed. */
const SHAPES = {
  native: { heads: 32, kvHeads: 8, headDim: 128 },
  js: { heads: 2, kvHeads: 1, headDim: 64 },
} as const;

/** Runs work beside a timer; returns the work's length and the timer's worst lateness, in milliseconds. */
async function lateness(work: () => Promise<unknown>): Promise<{ length: number; worst: number }> {
  let worst = 0;
  let due = performance.now() + TIMER_MILLISECONDS;
  let timer: NodeJS.Timeout;
  const tick = () => {
    const time = performance.now();
    worst = Math.max(worst, time - due);
    due = time + TIMER_MILLISECONDS;
    timer = setTimeout(tick, TIMER_MILLISECONDS);
  };
  timer = setTimeout(tick, TIMER_MILLISECONDS);
  const start = performance.now();
  await work();
  const end = performance.now();
  clearTimeout(timer);
  // A timer that is overdue when the work ends was late too.
  return { length: end - start, worst: Math.max(worst, end - due) };
}

function prefill(): () => Promise<unknown> {
  const { heads, kvHeads, headDim } = SHAPES[backend().kind];
  const rows = (count: number) =>
    Float32Array.from({ length: TOKENS * count * headDim }, (_, i) => Math.sin(i * 0.37));
  const q = Tensor.view(rows(heads), [1, TOKENS, heads, headDim]);
  const k = Tensor.view(rows(kvHeads), [1, TOKENS, kvHeads, headDim]);
  const v = Tensor.view(rows(kvHeads), [1, TOKENS, kvHeads, headDim]);
  const out = Tensor.zeros([1, TOKENS, heads, headDim]);
  return () => attentionAsync(q, k, v, { causal: true, out });
}

async function main(): Promise<void> {
  const { kind, isa, threads } = backend();
  const { heads, kvHeads, headDim } = SHAPES[kind];
  console.log(
    `attentionAsync, prefill ${TOKENS}, ${heads}/${kvHeads}/${headDim}: ${kind} ${isa}, ${threads} threads`,
  );
  const work = prefill();
  await work();
  let passed = 0;
  for (let run = 1; run <= RUNS; run++) {
    const busy = await lateness(work);
    const idle = await lateness(() => wait(busy.length));
    const ok = busy.worst <= idle.worst + BAR_MILLISECONDS;
    passed += ok ? 1 : 0;
    console.log(
      `run ${run}: ${busy.length.toFixed(0)} ms, timer late by ${busy.worst.toFixed(1)} ms, ` +
        `idle ${idle.worst.toFixed(1)} ms${ok ? '' : '  LATE'}`,
    );
  }
  console.log(
    `${passed} of ${RUNS} runs at most ${BAR_MILLISECONDS} ms later than idle; bar ${RUNS_TO_PASS}`,
  );
  process.exitCode = passed >= RUNS_TO_PASS ? 0 : 1;
}

void main();
