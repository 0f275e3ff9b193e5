/**
 * One start of a model, in a process of its own: loads it, writes a few tokens, says how long loading took, and how much
 * memory is its share when asked to (a line on stdin); ends with stdin. See main.ts.
 */
import { readFileSync } from 'node:fs';
import { createInterface } from 'node:readline';
import { loadModel, type WeightFacts } from '../../lib';

export interface Started {
  /** Of loadModel, milliseconds. */
  load: number;
  /** From the start of the process until the model was ready. */
  ready: number;
  /** From there to the first token of a short prompt. */
  firstToken: number;
  weights: WeightFacts;
  bytes: number;
}

/** Kilobytes of /proc/PID/smaps_rollup: pages count as a share among the processes that have them. */
export interface Share {
  rss: number;
  pss: number;
}

function share(): Share {
  const text = readFileSync('/proc/self/smaps_rollup', 'utf8');
  const field = (name: string) => Number(new RegExp(`^${name}: +(\\d+) kB`, 'm').exec(text)?.[1]);
  return { rss: field('Rss'), pss: field('Pss') };
}

function print(value: object): void {
  process.stdout.write(`${JSON.stringify(value)}\n`);
}

async function main(): Promise<void> {
  const [path, folder] = process.argv.slice(2);
  const began = performance.now();
  const model = await loadModel(path, { weightCache: folder === 'none' ? false : folder });
  const loaded = performance.now();
  const text = model.generate('Once upon a time', { maxTokens: 8 })[Symbol.asyncIterator]();
  await text.next();
  const first = performance.now();
  while (!(await text.next()).done);
  const started: Started = {
    load: loaded - began,
    ready: loaded,
    firstToken: first - loaded,
    weights: model.weights,
    bytes: model.bytes,
  };
  print(started);
  for await (const line of createInterface({ input: process.stdin })) {
    if (line === 'share') print(share());
  }
  await model.dispose();
}

void main();
