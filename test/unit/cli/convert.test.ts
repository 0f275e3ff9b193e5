import { existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { embeddedModel } from '../../support/package';
import { gqa } from './cli-process';

let folder: string;
beforeAll(() => {
  folder = mkdtempSync(join(tmpdir(), 'gqa-convert-cli-'));
  writeFileSync(join(folder, 'text.txt'), 'The sea was blue.\n<|end|>\nThe cat sat on the mat.');
  writeFileSync(join(folder, 'plan.json'), '[1, 2, 2, 2, 2, 1]');
});
afterAll(() => rmSync(folder, { recursive: true }));

const at = (name: string): string => join(folder, name);

interface Report {
  crossEntropy: { before: number; after: number };
  kl: number;
  bytesPerToken: { before: number; after: number };
  layers: { layer: number; outputError: number }[];
}

test('a plan from a file: table on stdout, report and page in files', () => {
  const { status, stdout, stderr } = gqa([
    ...['convert', embeddedModel, at('out'), '--method', 'aligned', '--kv-heads', at('plan.json')],
    ...['--regroup', '--text', at('text.txt')],
    ...['--report', at('report.json'), '--html', at('report.html')],
  ]);
  expect(stderr).toBe('');
  expect(status).toBe(0);
  expect(stdout).toContain('| output error |');
  expect(stdout).toContain('cross-entropy');
  const report = JSON.parse(readFileSync(at('report.json'), 'utf8')) as Report;
  expect(report.layers.map(({ layer }) => layer)).toEqual([0, 1, 2, 3, 4, 5]);
  expect(report.crossEntropy.after).toBeGreaterThan(0);
  expect(report.kl).toBeGreaterThan(0);
  expect(report.bytesPerToken).toEqual({ before: 1536, after: 1280 });
  expect(readFileSync(at('report.html'), 'utf8')).toContain('<svg');
});

test('--json prints the report; what is there stays unless --force', () => {
  const run = (...more: string[]) =>
    gqa([
      'convert',
      embeddedModel,
      at('json'),
      '--method',
      'mean',
      '--kv-heads',
      '1',
      '--json',
      ...more,
    ]);
  const first = run();
  expect(first.status).toBe(0);
  expect(JSON.parse(first.stdout)).toMatchObject({ method: 'mean', crossEntropy: null });
  const second = run();
  expect([second.status, second.stdout]).toEqual([1, '']);
  expect(second.stderr).toContain('OUTPUT_EXISTS');
  expect(run('--force').status).toBe(0);
});

test('wrong usage is told from a failure', () => {
  const wrong = gqa(['convert', embeddedModel, at('x'), '--method', 'best', '--kv-heads', '1']);
  expect(wrong.status).toBe(2);
  expect(wrong.stderr).toContain('Allowed choices are mean, first');
  const plan = gqa([
    'convert',
    embeddedModel,
    at('x'),
    '--method',
    'mean',
    '--kv-heads',
    at('no.json'),
  ]);
  expect(plan.status).toBe(2);
  const heads = gqa(['convert', embeddedModel, at('x'), '--method', 'mean', '--kv-heads', '4']);
  expect(heads.status).toBe(1);
  expect(heads.stderr).toContain('HEADS_NOT_DIVISIBLE');
  expect(existsSync(at('x'))).toBe(false);
});
