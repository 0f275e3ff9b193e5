/** gqa info: what runs here and why. */
import { availableParallelism, cpus, freemem, totalmem } from 'node:os';
import type { Command } from 'commander';
import { backend } from '../../backend';
import { packageVersion } from '../about';
import { print } from '../terminal';

const HELP = `
Examples:
  gqa info
  gqa info --json | jq .backend
  GQA_ISA=avx2 gqa info    can AVX2 be forced here?`;

const NAME_WIDTH = 10;

interface MemoryInfo {
  totalBytes: number;
  /** What the cgroup allows; null where it sets no limit. */
  limitBytes: number | null;
  availableBytes: number;
}

interface Info {
  version: string;
  backend: { kind: string; isa: string; threads: number; reason: string };
  cpu: { model: string; architecture: string; logicalCpus: number; usableCpus: number };
  memory: MemoryInfo;
  node: string;
  platform: string;
}

function memoryInfo(): MemoryInfo {
  const totalBytes = totalmem();
  // 0 or a number beyond the machine's memory: no limit.
  const limit = process.constrainedMemory();
  const limitBytes = limit > 0 && limit < totalBytes ? limit : null;
  // Node 20.13 and later know what the cgroup leaves.
  const available = process.availableMemory?.() ?? freemem();
  return { totalBytes, limitBytes, availableBytes: Math.min(available, limitBytes ?? totalBytes) };
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
    node: process.version,
    platform: process.platform,
  };
}

function gibibytes(bytes: number): string {
  return `${(bytes / 2 ** 30).toFixed(1)} GiB`;
}

function infoText({ version, backend: chosen, cpu, memory, node, platform }: Info): string {
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
