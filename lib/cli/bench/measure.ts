/** Times one case in rounds, with the machine's limits measured before, between and after them. */
import { now, best, type LimitProbe } from './limits';
import { rate, type MachineLimits, type Rating, type Work } from './roofline';
import { spread, type Spread } from '../../toolkit/statistics';

/** Something that can be called again and again. Verified before it is timed. */
export interface Subject {
  /** What one call does. */
  work: Work;
  /** Calls until the same memory is touched again. */
  period: number;
  run(calls: number): void;
  /** Error against float64 of a few results, relative; throws where it is too large. */
  verify(): number;
  dispose(): void;
}

export interface Measurement extends Rating {
  /** Of one call, in microseconds. */
  microseconds: Spread;
  /** The best seen around this case. */
  limits: MachineLimits;
  /** Share of the time that AMX was in its slow state; null without AMX. */
  slowTiles: number | null;
  /** Error found by verify(). */
  error: number;
}

const ROUNDS = 3;
/** A sample is a run of calls at least this long: well above the clock's resolution. */
const SAMPLE_SECONDS = 1e-3;
/** Calls before timing: one rotation, and this long at least, so that the code is compiled and the clocks are up. */
const WARM_SECONDS = 0.05;

/** Lets signals and other events in; the timings themselves are synchronous. */
function breathe(): Promise<void> {
  return new Promise((resolve) => setImmediate(resolve));
}

/** Runs the subject until warm; returns the seconds of a call. */
function warmUp(subject: Subject, seconds: number): number {
  const start = now();
  let calls = 0;
  do {
    subject.run(1);
    calls++;
  } while (now() - start < WARM_SECONDS || (calls < subject.period && now() - start < seconds));
  return (now() - start) / calls;
}

/** @throws the signal's reason when it is aborted */
export async function measure(
  subject: Subject,
  probe: LimitProbe,
  seconds: number,
  signal: AbortSignal,
): Promise<Measurement> {
  const error = subject.verify();
  const calls = Math.max(1, Math.ceil(SAMPLE_SECONDS / warmUp(subject, seconds)));
  const samples: number[] = [];
  probe.takeSlowShare();
  let limits = probe.measure();
  for (let round = 0; round < ROUNDS; round++) {
    const roundEnd = now() + seconds / ROUNDS;
    do {
      const start = now();
      subject.run(calls);
      samples.push(((now() - start) / calls) * 1e6);
    } while (now() < roundEnd);
    limits = best(limits, probe.measure());
    await breathe();
    signal.throwIfAborted();
  }
  const microseconds = spread(samples);
  const rating = rate(subject.work, limits, microseconds.median / 1e6);
  return { ...rating, microseconds, limits, slowTiles: probe.takeSlowShare(), error };
}
