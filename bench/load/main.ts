/**
 * How long a model takes to load, packed anew, for the first time and from packed weights in a cache folder, and what
 * three processes that share them have in memory against three that do not.
 *
 *   npm run bench:load -- MODEL...      fails where a later start takes a second or more
 *
 * Every start is a process of its own; model files are in the page cache, as the first start leaves them. Memory is the
 * proportional set size (PSS) after a few tokens: a page that n processes have mapped counts 1/n in each.
 */
import { spawn, type ChildProcess } from 'node:child_process';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { basename, join } from 'node:path';
import { createInterface } from 'node:readline';
import type { Share, Started } from './start';

const LATER_STARTS = 7;
const PROCESSES = 3;
const BAR_MS = 1000;
const MEGABYTE_KB = 1000 / 1.024;

class Start {
  private readonly child: ChildProcess;
  private readonly lines: AsyncIterator<string>;

  constructor(path: string, folder: string) {
    this.child = spawn(process.execPath, [join(__dirname, 'start.js'), path, folder], {
      stdio: ['pipe', 'pipe', 'inherit'],
    });
    this.lines = createInterface({ input: this.child.stdout! })[Symbol.asyncIterator]();
  }

  async answer<T>(): Promise<T> {
    const line = await this.lines.next();
    if (line.done === true) throw new Error('a start ended before it answered');
    return JSON.parse(line.value) as T;
  }

  share(): Promise<Share> {
    this.child.stdin!.write('share\n');
    return this.answer<Share>();
  }

  end(): Promise<void> {
    const ended = new Promise<void>((resolve) => this.child.once('exit', () => resolve()));
    this.child.stdin!.end();
    return ended;
  }
}

async function startOnce(path: string, folder: string): Promise<Started> {
  const start = new Start(path, folder);
  const started = await start.answer<Started>();
  await start.end();
  return started;
}

/** Shares of processes that have the model at the same time, in MB. */
async function shares(path: string, folder: string): Promise<{ pss: number[]; rss: number[] }> {
  const starts: Start[] = [];
  for (let i = 0; i < PROCESSES; i++) {
    starts.push(new Start(path, folder));
    await starts[i].answer<Started>();
  }
  const seen: Share[] = [];
  for (const start of starts) seen.push(await start.share());
  for (const start of starts) await start.end();
  const megabytes = (kb: number) => Math.round(kb / MEGABYTE_KB);
  return { pss: seen.map(({ pss }) => megabytes(pss)), rss: seen.map(({ rss }) => megabytes(rss)) };
}

function median(values: readonly number[]): number {
  return [...values].sort((a, b) => a - b)[values.length >> 1];
}

function describeStart(what: string, starts: readonly Started[]): string {
  const [load, ready, first] = (['load', 'ready', 'firstToken'] as const).map((key) =>
    median(starts.map((start) => start[key])).toFixed(0),
  );
  return `  ${what.padEnd(34)} loadModel ${load} ms, ready ${ready} ms after the process began, first token ${first} ms later`;
}

/** Whether later starts are fast enough. */
async function bench(path: string): Promise<boolean> {
  const folder = mkdtempSync(join(tmpdir(), 'gqa-bench-load-'));
  try {
    const packed = [];
    for (let i = 0; i < 3; i++) packed.push(await startOnce(path, 'none'));
    const first = await startOnce(path, folder);
    const later = [];
    for (let i = 0; i < LATER_STARTS; i++) later.push(await startOnce(path, folder));
    if (later.some(({ weights }) => weights.reason !== 'found in the cache')) {
      throw new Error(`a later start did not find the weights: ${later[0].weights.reason}`);
    }
    console.log(`${basename(path)}: ${(first.bytes / 1e6).toFixed(0)} MB of weights`);
    console.log(describeStart('without a cache, median of 3', packed));
    console.log(describeStart('first start', [first]));
    console.log(describeStart(`later starts, median of ${LATER_STARTS}`, later));
    for (const [what, where] of [
      ['packed by each', 'none'],
      ['mapped', folder],
    ]) {
      const { pss, rss } = await shares(path, where);
      const total = pss.reduce((sum, x) => sum + x);
      console.log(
        `  ${PROCESSES} processes, ${what}: PSS ${pss.join(' + ')} = ${total} MB (RSS ${rss.join(', ')})`,
      );
    }
    return median(later.map(({ load }) => load)) < BAR_MS;
  } finally {
    rmSync(folder, { recursive: true });
  }
}

async function main(): Promise<void> {
  const paths = process.argv.slice(2);
  if (paths.length === 0) {
    console.error('usage: npm run bench:load -- MODEL...');
    process.exitCode = 2;
    return;
  }
  for (const path of paths) {
    if (await bench(path)) continue;
    console.log(`  later starts take ${BAR_MS} ms or more`);
    process.exitCode = 1;
  }
}

void main();
