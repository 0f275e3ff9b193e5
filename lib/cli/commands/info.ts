/** gqa info: what runs here and why. */
import { availableParallelism, cpus } from 'node:os';
import type { Command } from 'commander';
import { backend } from '../../backend';
import { cpuCaches, memoryInfo, type CacheLevel, type MemoryInfo } from '../../toolkit/machine';
import { formatBytes } from '../../toolkit/numbers';
import { packageVersion } from '../about';
import { print } from '../terminal';

const HELP = `
Examples:
  gqa info
  gqa info --json | jq .backend
  GQA_ISA=avx2 gqa info    can AVX2 be forced here?`;

const NAME_WIDTH = 10;

interface Info {
  version: string;
  backend: { kind: string; isa: string; threads: number; reason: string };
  cpu: { model: string; architecture: string; logicalCpus: number; usableCpus: number };
  memory: MemoryInfo;
  caches: CacheLevel[];
  node: string;
  platform: string;
}

export function collectInfo(): Info {
  const { kind, isa, threads, reason } = backend();
  return {
    version: packageVersion(),
    backend: { kind, isa, threads, reason },
    cpu: {
      model: cpus()[0]?.model.trim() ?? 'unknown',
      architecture: process.arch,
      logicalCpus: cpus().length,
      usableCpus: availableParallelism(),
    },
    memory: memoryInfo(),
    caches: cpuCaches(),
    node: process.version,
    platform: process.platform,
  };
}

function gibibytes(bytes: number): string {
  return `${(bytes / 2 ** 30).toFixed(1)} GiB`;
}

function cacheText({ level, count, size }: CacheLevel): string {
  return `L${level} ${count > 1 ? `${count} x ` : ''}${formatBytes(size)}`;
}

function infoText({ version, backend: chosen, cpu, memory, caches, node, platform }: Info): string {
  const limit =
    memory.limitBytes === null ? 'no cgroup limit' : `limit ${gibibytes(memory.limitBytes)}`;
  const lines = [
    ['gqa', version],
    ['backend', `${chosen.kind} ${chosen.isa}`],
    ['threads', String(chosen.threads)],
    ['why', chosen.reason.replaceAll('; ', `\n${' '.repeat(NAME_WIDTH)}`)],
    ['cpu', `${cpu.model}, ${cpu.logicalCpus} logical, ${cpu.usableCpus} usable`],
    [
      'memory',
      `${gibibytes(memory.availableBytes)} available of ${gibibytes(memory.totalBytes)}, ${limit}`,
    ],
    ...(caches.length > 0 ? [['caches', caches.map(cacheText).join(', ')]] : []),
    ['node', `${node} on ${platform} ${cpu.architecture}`],
  ];
  return lines.map(([name, value]) => `${`${name}:`.padEnd(NAME_WIDTH)}${value}\n`).join('');
}

export function addInfo(program: Command): void {
  program
    .command('info')
    .summary('what runs here, and why')
    .description('Print the backend, CPU, threads and memory that gqa finds on this machine.')
    .option('--json', 'print one JSON document')
    .addHelpText('after', HELP)
    .action(async ({ json }: { json?: boolean }) => {
      const info = collectInfo();
      await print(json ? `${JSON.stringify(info, null, 2)}\n` : infoText(info));
    });
}
