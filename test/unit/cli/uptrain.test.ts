/** gqa uptrain on a tiny model. */
import { existsSync, mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { goldenFolder } from '../../support/package';
import { writeTinyCheckpoint } from '../../support/tiny-checkpoint';
import { gqa } from './cli-process';

const TEXT = join(goldenFolder, 'stories-sample.txt');
let folder: string;
beforeAll(() => {
  folder = mkdtempSync(join(tmpdir(), 'gqa-cli-uptrain-'));
  writeTinyCheckpoint(join(folder, 'model'));
});
afterAll(() => rmSync(folder, { recursive: true }));

const run = (...args: string[]) =>
  gqa(['uptrain', join(folder, 'model'), join(folder, 'out'), '--text', TEXT, ...args]);
const SHORT = ['--alpha', '0.1', '--budget', '2e3', '--batch', '1', '--window', '40'];

test('trains, reports as JSON, draws the curve', () => {
  const html = join(folder, 'curve.html');
  const { status, stdout, stderr } = run(...SHORT, '--eval', TEXT, '--html', html, '--json');
  expect([status, stderr]).toEqual([
    0,
    expect.stringMatching(/^step 5 of 5: cross-entropy .* 0 s left/),
  ]);
  const { settings, tokens, crossEntropy, losses } = JSON.parse(stdout);
  expect(settings).toMatchObject({ steps: 5, batch: 1, window: 40, train: 'all' });
  expect([tokens, losses.length]).toEqual([200, 5]);
  expect(crossEntropy.after).toBeLessThan(crossEntropy.before);
  expect(readFileSync(html, 'utf8')).toContain('<svg');
  const again = run(...SHORT);
  expect([again.status, again.stderr]).toEqual([1, expect.stringContaining('OUTPUT_EXISTS')]);
  const forced = run(...SHORT, '--force');
  expect([forced.status, forced.stdout]).toEqual([0, expect.stringMatching(/200 tokens in \d+ s/)]);
});

test('wrong usage', () => {
  for (const [args, message] of [
    [['--alpha', '0.1'], /--budget/],
    [['--alpha', '0', '--budget', '5'], /--alpha/],
    [[...SHORT, '--train', 'some'], /kv\+norms/],
    [['--alpha', '0.1', '--budget', '2.5'], /whole number/],
  ] as const) {
    const { status, stderr } = run(...args);
    expect([status, stderr]).toEqual([2, expect.stringMatching(message)]);
  }
  expect(existsSync(join(folder, 'out.training'))).toBe(false);
});
