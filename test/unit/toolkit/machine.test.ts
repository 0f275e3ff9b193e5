/** Memory within cgroups of both versions, whatever this machine's are; and what this machine says of itself. */
import { totalmem } from 'node:os';
import { getBackend } from '../../../lib/backend';
import { cpuCaches, memoryInfo, memoryWithin } from '../../../lib/toolkit/machine';
import { coldBytes, ReadProbe } from '../../../lib/toolkit/read-probe';

const GIB = 2 ** 30;
const MACHINE = { totalBytes: 16 * GIB, availableBytes: 12 * GIB };

const within = (files: Record<string, string>) =>
  memoryWithin(MACHINE, (path) => (Object.hasOwn(files, path) ? files[path] : null));

test('without cgroups the machine decides', () => {
  expect(within({})).toEqual({ ...MACHINE, limitBytes: null });
});

test('version 2: the limit, less what is used and not given back', () => {
  const files = {
    '/proc/self/cgroup': '0::/user.slice/app\n',
    '/sys/fs/cgroup/user.slice/app/memory.max': `${4 * GIB}\n`,
    '/sys/fs/cgroup/user.slice/app/memory.current': `${3 * GIB}\n`,
    '/sys/fs/cgroup/user.slice/app/memory.stat': `anon 5\ninactive_file ${GIB}\nactive_file 7\n`,
    '/sys/fs/cgroup/user.slice/memory.max': 'max\n',
  };
  expect(within(files)).toEqual({ ...MACHINE, limitBytes: 4 * GIB, availableBytes: 2 * GIB });
  // A cgroup around it may leave less.
  const tighter = {
    ...files,
    '/sys/fs/cgroup/user.slice/memory.max': `${6 * GIB}\n`,
    '/sys/fs/cgroup/user.slice/memory.current': `${5 * GIB}\n`,
  };
  expect(within(tighter)).toEqual({ ...MACHINE, limitBytes: 4 * GIB, availableBytes: GIB });
  const full = { ...files, '/sys/fs/cgroup/user.slice/app/memory.current': `${6 * GIB}\n` };
  expect(within(full).availableBytes).toBe(0);
});

test('version 2 in a container that sees its cgroup as the root', () => {
  const files = {
    '/proc/self/cgroup': '0::/\n',
    '/sys/fs/cgroup/memory.max': `${2 * GIB}`,
    '/sys/fs/cgroup/memory.current': `${GIB}`,
  };
  expect(within(files)).toEqual({ ...MACHINE, limitBytes: 2 * GIB, availableBytes: GIB });
});

test('version 1: the memory controller, whatever it shares its line with', () => {
  const files = {
    '/proc/self/cgroup': '5:cpu,memory:/docker/abc\n4:pids:/elsewhere\n0::/\n',
    '/sys/fs/cgroup/memory/memory.limit_in_bytes': '9223372036854771712\n',
    '/sys/fs/cgroup/memory/memory.usage_in_bytes': `${15 * GIB}\n`,
    '/sys/fs/cgroup/memory/docker/abc/memory.limit_in_bytes': `${8 * GIB}\n`,
    '/sys/fs/cgroup/memory/docker/abc/memory.usage_in_bytes': `${2 * GIB}\n`,
    '/sys/fs/cgroup/memory/docker/abc/memory.stat': `inactive_file 1\ntotal_inactive_file ${GIB}\n`,
  };
  expect(within(files)).toEqual({ ...MACHINE, limitBytes: 8 * GIB, availableBytes: 7 * GIB });
});

test('a limit beyond what the machine has available changes nothing', () => {
  const files = {
    '/proc/self/cgroup': '0::/\n',
    '/sys/fs/cgroup/memory.max': `${15 * GIB}`,
    '/sys/fs/cgroup/memory.current': '0',
  };
  expect(within(files)).toEqual({ ...MACHINE, limitBytes: 15 * GIB, availableBytes: 12 * GIB });
});

test('this machine', () => {
  const { totalBytes, limitBytes, availableBytes } = memoryInfo();
  expect(totalBytes).toBe(totalmem());
  expect(availableBytes).toBeGreaterThan(0);
  expect(availableBytes).toBeLessThanOrEqual(limitBytes ?? totalBytes);
  const caches = cpuCaches();
  for (const { size, count, bytes } of caches) {
    expect(bytes).toBeGreaterThanOrEqual(size);
    expect(bytes).toBeLessThanOrEqual(size * count);
  }
  const levels = caches.map(({ level }) => level);
  expect(levels).toEqual([...new Set(levels)].sort());
  expect(coldBytes()).toBeGreaterThanOrEqual(4 * (caches.at(-1)?.bytes ?? 0));
});

test('reading memory has a speed', () => {
  const speed = new ReadProbe(getBackend()).measure();
  expect(speed).toBeGreaterThan(1e7);
  expect(speed).toBeLessThan(1e13);
});
