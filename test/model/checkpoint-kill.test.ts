/**
 * A process that writes a checkpoint is killed at random moments: there is the whole checkpoint or none, and the next run
 * succeeds and removes what the dead one left. GQA_KILLS says how often.
 */
import { spawn, spawnSync } from 'node:child_process';
import { once } from 'node:events';
import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { compiledRoot } from '../support/child';
import { embeddedModel } from '../support/package';

const KILLS = Number(process.env.GQA_KILLS ?? 3);
const SECONDS = 0.25;

let folder: string;
beforeAll(() => {
  folder = mkdtempSync(join(tmpdir(), 'gqa-kill-'));
});
afterAll(() => rmSync(folder, { recursive: true }));

/** Says so when it begins; takes SECONDS over the tensors, or no longer than it must. */
const program = (out: string, slow: boolean): string => `
  const { createSink, openSource } = require(${JSON.stringify(join(compiledRoot, 'lib/model/checkpoint-io'))});
  const source = openSource(${JSON.stringify(embeddedModel)});
  require('node:fs').writeSync(1, 'begin');
  const pause = ${slow ? (1000 * SECONDS) / 56 : 0};
  const sink = createSink(${JSON.stringify(out)}, source, { overwrite: true });
  while (sink.copyNext() !== null) Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, pause);
  sink.commit();`;

test.each(['folder', 'model.gguf'])('%s', async (name) => {
  const out = join(folder, name);
  const tensors = (): Buffer =>
    readFileSync(name.endsWith('.gguf') ? out : join(out, 'model.safetensors'));
  const run = (): number | null => spawnSync(process.execPath, ['-e', program(out, false)]).status;
  expect(run()).toBe(0);
  const whole = tensors();
  for (let kill = 0; kill < KILLS; kill++) {
    // Every other time there is an old output, which must stay or be replaced as a whole.
    const old = kill % 2 === 1;
    if (!old) rmSync(out, { recursive: true, force: true });
    const child = spawn(process.execPath, ['-e', program(out, true)], {
      stdio: ['ignore', 'pipe', 'inherit'],
    });
    await once(child.stdout, 'data');
    await new Promise((resolve) => setTimeout(resolve, 1300 * SECONDS * Math.random()));
    child.kill('SIGKILL');
    await once(child, 'exit');
    if (old || existsSync(out)) expect(tensors().equals(whole)).toBe(true);
    expect(run()).toBe(0);
    expect(tensors().equals(whole)).toBe(true);
    expect(readdirSync(folder).filter((entry) => entry.startsWith('.'))).toEqual([]);
  }
});
