/** What this machine has: memory that a process may still take, caches of its processors. */
import { readFileSync, readdirSync } from 'node:fs';
import { freemem, totalmem } from 'node:os';
import { posix } from 'node:path';

/** Reads a file of the system; null where there is none. */
export type ReadText = (path: string) => string | null;

function readSystemFile(path: string): string | null {
  try {
    return readFileSync(path, 'utf8');
  } catch {
    return null;
  }
}

export interface MemoryInfo {
  totalBytes: number;
  /** What cgroups allow this process, the tightest of them; null where none sets a limit. */
  limitBytes: number | null;
  /** What can still be taken: of the machine's memory, and within every limit. */
  availableBytes: number;
}

/** Where a hierarchy of cgroups is mounted, and its files: limit, use, and what of that use the system gives back. */
interface Hierarchy {
  root: string;
  limit: string;
  used: string;
  /** The line of memory.stat that counts pages of files that nobody used lately, children's included. */
  reclaimable: RegExp;
}

const CGROUP_2: Hierarchy = {
  root: '/sys/fs/cgroup',
  limit: 'memory.max',
  used: 'memory.current',
  reclaimable: /^inactive_file (\d+)$/m,
};
const CGROUP_1: Hierarchy = {
  root: '/sys/fs/cgroup/memory',
  limit: 'memory.limit_in_bytes',
  used: 'memory.usage_in_bytes',
  reclaimable: /^total_inactive_file (\d+)$/m,
};

function numberIn(text: string | null): number | null {
  const value = text === null ? NaN : Number.parseInt(text, 10);
  return Number.isFinite(value) ? value : null;
}

/** This process's cgroup and those around it, up to the root of the hierarchy. */
function groupsOf(path: string): string[] {
  const groups = [posix.normalize(`/${path}`)];
  while (groups[0] !== '/') groups.unshift(posix.dirname(groups[0]));
  return groups;
}

/** The limit of each cgroup that has one, with what is left of it. */
function limits({ root, limit, used, reclaimable }: Hierarchy, path: string, read: ReadText) {
  return groupsOf(path).flatMap((group) => {
    const file = (name: string): string | null => read(posix.join(root, group, name));
    const bytes = numberIn(file(limit));
    if (bytes === null) return [];
    const reclaimed = Number(reclaimable.exec(file('memory.stat') ?? '')?.[1] ?? 0);
    const taken = Math.max(0, (numberIn(file(used)) ?? 0) - reclaimed);
    return [{ bytes, left: Math.max(0, bytes - taken) }];
  });
}

/** @param machine the machine's memory, and what of it is available, where no cgroup says less */
export function memoryWithin(
  machine: { totalBytes: number; availableBytes: number },
  read: ReadText,
): MemoryInfo {
  // A line is hierarchy:controllers:path; version 2 has the number 0 and no controllers.
  const lines = (read('/proc/self/cgroup') ?? '').split('\n').map((line) => line.split(':'));
  const found = lines.flatMap(([, controllers, ...path]) => {
    if (controllers === '') return limits(CGROUP_2, path.join(':'), read);
    const memory = controllers?.split(',').includes('memory');
    return memory ? limits(CGROUP_1, path.join(':'), read) : [];
  });
  // A limit beyond the machine's memory, as version 1 writes for none, is none.
  const real = found.filter(({ bytes }) => bytes < machine.totalBytes);
  return {
    totalBytes: machine.totalBytes,
    limitBytes: real.length === 0 ? null : Math.min(...real.map(({ bytes }) => bytes)),
    availableBytes: Math.min(machine.availableBytes, ...real.map(({ left }) => left)),
  };
}

/** Of the machine, and of the cgroups (1 or 2) that this process is in. */
export function memoryInfo(): MemoryInfo {
  const meminfo = /^MemAvailable:\s+(\d+) kB$/m.exec(readSystemFile('/proc/meminfo') ?? '');
  // Node 20.13 and later know more than what lies idle.
  const free = process.availableMemory?.() ?? freemem();
  const availableBytes = meminfo === null ? free : Number(meminfo[1]) * 1024;
  return memoryWithin({ totalBytes: totalmem(), availableBytes }, readSystemFile);
}

/** The processors' caches of one level, all together. */
export interface CacheLevel {
  level: number;
  /** Of one of them. */
  size: number;
  /** How many of them there are. */
  count: number;
  bytes: number;
}

const CPUS = '/sys/devices/system/cpu';

/** Data caches by level, from Linux's sysfs; empty where it is not told. */
export function cpuCaches(): CacheLevel[] {
  const sizes = new Map<string, { level: number; size: number }>();
  try {
    for (const cpu of readdirSync(CPUS).filter((name) => /^cpu\d+$/.test(name))) {
      const folder = posix.join(CPUS, cpu, 'cache');
      for (const index of readdirSync(folder).filter((name) => /^index\d+$/.test(name))) {
        const read = (file: string) => readFileSync(posix.join(folder, index, file), 'utf8').trim();
        if (read('type') === 'Instruction') continue;
        const level = Number(read('level'));
        // Whoever shares a cache lists the same processors.
        sizes.set(`${level}:${read('shared_cpu_list')}`, { level, size: sizeOf(read('size')) });
      }
    }
  } catch {
    // Not Linux, or a container that hides sysfs.
    return [];
  }
  const all = [...sizes.values()];
  const levels = [...new Set(all.map(({ level }) => level))].sort((a, b) => a - b);
  return levels.map((level) => {
    const those = all.filter((cache) => cache.level === level);
    const bytes = those.reduce((sum, { size }) => sum + size, 0);
    return { level, size: Math.max(...those.map(({ size }) => size)), count: those.length, bytes };
  });
}

/** '32768K', '1M' */
function sizeOf(text: string): number {
  const units: Record<string, number> = { K: 2 ** 10, M: 2 ** 20, G: 2 ** 30 };
  return Number.parseInt(text, 10) * (units[text.at(-1)!] ?? 1);
}
