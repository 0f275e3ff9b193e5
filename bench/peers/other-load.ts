/**
 * What processes that take no part use of the CPUs. Contenders whose threads wait for each other by spinning lose whole
 * time slices on a machine that others use too, and quotients with them say nothing.
 */
import { readFileSync } from 'node:fs';
import { cpus } from 'node:os';
import type { Contender } from './protocol';

/** Above this share of the CPUs no verdict is given. */
export const BUSY_SHARE = 0.05;

/** Linux counts the CPU time of a process in ticks of this length, whatever the kernel's own. */
const TICK_MILLISECONDS = 10;

/** What counts as taking part: these, and this process. */
export function participants(contenders: readonly Contender[]): number[] {
  const pids = contenders.map(({ pid }) => pid).filter((pid) => pid !== undefined);
  return [process.pid, ...pids];
}

/** 'yes' or 'NO' for a figure against its bar; 'busy' where others kept the machine from telling. */
export function verdict(value: number, bar: number, others: number | null): string {
  if (others !== null && others > BUSY_SHARE) return 'busy';
  return value >= bar ? 'yes' : 'NO';
}

export interface CpuTimes {
  /** All CPUs, milliseconds. */
  busy: number;
  idle: number;
  /** Of the processes that take part. */
  own: number;
}

/** utime + stime of /proc/PID/stat; the name before them is in brackets and may hold anything. */
export function processMilliseconds(stat: string): number {
  const fields = stat.slice(stat.lastIndexOf(')') + 2).split(' ');
  return (Number(fields[11]) + Number(fields[12])) * TICK_MILLISECONDS;
}

/** Null where the system does not tell, or a process has ended. */
export function cpuTimes(pids: readonly number[]): CpuTimes | null {
  try {
    const own = pids
      .map((pid) => processMilliseconds(readFileSync(`/proc/${pid}/stat`, 'utf8')))
      .reduce((a, b) => a + b, 0);
    const times = { busy: 0, idle: 0, own };
    for (const { times: cpu } of cpus()) {
      times.busy += cpu.user + cpu.nice + cpu.sys + cpu.irq;
      times.idle += cpu.idle;
    }
    return times;
  } catch {
    // Not Linux, or one of them is gone: unknown.
    return null;
  }
}

/** Share of the CPUs' time between two readings that went to others; null where unknown. */
export function otherShare(before: CpuTimes | null, after: CpuTimes | null): number | null {
  if (before === null || after === null) return null;
  const busy = after.busy - before.busy;
  const total = busy + after.idle - before.idle;
  return total > 0 ? Math.max(0, busy - (after.own - before.own)) / total : null;
}
